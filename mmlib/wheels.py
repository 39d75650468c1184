"""Pinned wheels: had from pip or from the folder of earlier downloads, verified, read as zip files.

A wheel is never installed or imported, so the wheel of one platform serves every host.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath

from mmlib.corpus import Member
from mmlib.errors import UserError
from mmlib.store import sha256_file

FOLDER = Path(".scratch/wheels")
AGAIN = "run `python -m mmlib fetch` again; what is finished is kept"
REPIN = "pin another wheel in mmlib/assets.yaml"
# One platform for all hosts: the same compiled wheel, hence the same bytes, everywhere.
PLATFORM = ["--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel: requirement (`name==version`), file name, size in bytes, SHA-256."""

    package: str
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """Members of one wheel: an exact name or a glob, and how many there must be."""

    wheel: str
    members: str
    count: int = 1


Download = Callable[[Wheel, Path, bool], None]


def whole(path: Path, size: int, sha256: str) -> bool:
    """Whether the file is there with the recorded size and hash."""
    return path.is_file() and path.stat().st_size == size and sha256_file(path) == sha256


class Progress:
    """Prints wheels as they arrive, with an estimate of the seconds left."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start, self.lock = total, 0, time.monotonic(), threading.Lock()

    def arrived(self, wheel: Wheel) -> None:
        with self.lock:
            self.done += wheel.bytes
            left = (time.monotonic() - self.start) * (self.total - self.done) / self.done
            megabytes = f"{self.done / 1e6:5.1f} of {self.total / 1e6:.1f} MB"
            print(f"  wheel {wheel.package:22} {megabytes}, about {left:.0f} s left", flush=True)


def obtain(wheel: Wheel, folder: Path, download: Download, progress: Progress) -> Path:
    """The wheel's path once its hash is right: from the folder, else downloaded, at most twice.

    Raises:
        UserError: the second file is wrong as well (it is deleted), or no file can be had.
    """
    path = folder / wheel.file
    for last in (False, True):
        if not path.exists():
            download(wheel, folder, last)
        if whole(path, wheel.bytes, wheel.sha256):
            progress.arrived(wheel)
            return path
        size, found = path.stat().st_size, sha256_file(path)
        path.unlink()
        if not last:
            print(f"{wheel.file} is damaged ({size} of {wheel.bytes} bytes): fetching it again", flush=True)
    raise UserError(
        f"{wheel.file} ({wheel.package}) has sha256 {found}, expected {wheel.sha256}",
        f"the package index serves another file: see `pip config list`, then {AGAIN}",
    )


def pip_download(wheel: Wheel, folder: Path, fresh: bool) -> None:
    """Put one wheel into `folder` with pip, under the user's own pip configuration.

    Args:
        fresh: pass by pip's cache, which may hold the damaged file.
    Raises:
        UserError: pip fails; the line holds pip's own reason.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    what = ["download", "--quiet", "--no-deps", "--only-binary=:all:", *PLATFORM, wheel.package]
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as part:
        run = subprocess.run(
            [*pip, *what, "--dest", part, *(["--no-cache-dir"] if fresh else [])],
            env={**os.environ, "TMPDIR": part},  # /tmp may be small, and here a kill leaves nothing behind
            capture_output=True,
            text=True,
            check=False,
        )
        found = list(Path(part).glob("*.whl"))
        if run.returncode or not found:
            raise _explain(wheel, run.stderr)
        os.replace(found[0], folder / wheel.file)


def _explain(wheel: Wheel, stderr: str) -> UserError:
    if "No space left" in stderr:
        return UserError(f"disk full while downloading {wheel.package}", f"free some space and {AGAIN}")
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("WARNING", "DEPRECATION", "[notice]"))]
    reason = (telling or lines or ["pip gave no reason"])[-1].removeprefix("ERROR: ")
    if "connection broken" in stderr:
        reason = f"the package index does not answer ({reason})"
    remedy = f"check the network and `pip config list`, or put {wheel.file} into {FOLDER}/, then {AGAIN}"
    return UserError(f"cannot download {wheel.package}: {reason}", remedy)


def read_members(path: Path, source: Source, max_bytes: int) -> list[Member]:
    """The members of a verified wheel that `source` names, sorted by name.

    Raises:
        UserError: an unsafe member anywhere in the wheel, another number of members than pinned, or more
            bytes than `max_bytes` (zipfile reads no more than the size that the directory declares).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            for info in infos:
                _refuse_unsafe(info, path)
            chosen = [i for i in infos if fnmatchcase(i.filename, source.members)]
            _refuse_unexpected(chosen, path, source, max_bytes)
            return sorted(Member(info.filename, archive.read(info)) for info in chosen)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path.name} is no sound zip file ({error})", REPIN) from error


def _refuse_unsafe(info: zipfile.ZipInfo, path: Path) -> None:
    names = PurePosixPath(info.filename), PureWindowsPath(info.filename)
    outside = any(".." in name.parts or name.anchor for name in names)
    if outside or stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{path.name} holds an unsafe member `{info.filename}`", REPIN)


def _refuse_unexpected(chosen: list[zipfile.ZipInfo], path: Path, source: Source, max_bytes: int) -> None:
    if len(chosen) != source.count:
        culprit = f"{path.name} has {len(chosen)} members `{source.members}`, expected {source.count}"
        raise UserError(culprit, "mend the member list in mmlib/assets.yaml")
    size = sum(info.file_size for info in chosen)
    if size > max_bytes:
        culprit = f"`{source.members}` of {path.name} unpacks to {size} bytes, the cap is {max_bytes}"
        raise UserError(culprit, "pin another wheel, or raise max_mb in mmlib/assets.yaml")
