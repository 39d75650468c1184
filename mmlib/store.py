"""Files that are either whole or absent: atomic writes, hashes, manifests.

Plumbing: nothing here may change a number (tests/test_dependencies.py holds the list).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mmlib.errors import UserError

MANIFEST = "manifest.json"


def project_root(start: Path | str | None = None) -> Path:
    """The repository root: the nearest folder upwards that holds params.yaml and mmlib/.

    Lets a notebook run from its own folder as well as from the root.
    """
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "mmlib").is_dir():
            return folder
    raise UserError(f"no project found at or above {here}", "run inside the cloned repository")


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Write `data` under a temporary name in the same folder, sync, rename.

    A reader sees the old file or the new one, never half of one, even after `kill -9`.
    """
    with atomic_stream(path) as stream:
        stream.buffer.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def atomic_stream(path: Path | str) -> Iterator[TextIO]:
    """Like `atomic_write`, for files that are written piece by piece; an exception leaves the old file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, which DVC would carry into shared caches
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise _explain(error, path) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _explain(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"disk full while writing {path}", "free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EROFS):
        return UserError(f"cannot write {path}", "make the folder writable and run the same command again")
    return error


def dump_json(obj: Any) -> str:
    """Canonical JSON text: sorted keys, lists of scalars on one line, no NaN, final newline."""
    return _layout(obj, "") + "\n"


def _layout(obj: Any, indent: str) -> str:
    inner = indent + " "
    if isinstance(obj, dict) and obj:
        if not all(isinstance(key, str) for key in obj):
            raise TypeError("JSON keys must be text: 1 and '1' would become one key")
        rows = [f"{inner}{_scalar(key)}: {_layout(obj[key], inner)}" for key in sorted(obj)]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(obj, list | tuple) and any(isinstance(item, dict | list | tuple) for item in obj):
        rows = [inner + _layout(item, inner) for item in obj]
        return "[\n" + ",\n".join(rows) + f"\n{indent}]"
    return _scalar(obj)


def _scalar(obj: Any) -> str:
    return json.dumps(obj, ensure_ascii=False, allow_nan=False)


def write_json(path: Path | str, obj: Any) -> None:
    """Write canonical JSON atomically."""
    atomic_write(path, dump_json(obj))


def read_json(path: Path | str) -> Any:
    """Read JSON; a missing or torn file is a UserError that names it."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing", "run `make reproduce` to make it") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error})", "delete it and run `make reproduce`") from error


def digest(obj: Any) -> str:
    """SHA-256 of an object's canonical JSON: the key under which resumable work is stored."""
    return hashlib.sha256(dump_json(obj).encode()).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Hex SHA-256 of a file, read in chunks."""
    return _hash_file(path, "sha256")


def md5_file(path: Path | str) -> str:
    """Hex MD5 of a file: the hash DVC writes into dvc.lock."""
    return _hash_file(path, "md5")


def _hash_file(path: Path | str, name: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, name).hexdigest()


def _listing(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): {"sha256": sha256_file(p), "bytes": p.stat().st_size} for p in files}


def write_manifest(folder: Path | str, **extra: Any) -> dict[str, Any]:
    """Record every file of `folder` with its hash and size in manifest.json, beside `extra` facts."""
    folder = Path(folder)
    manifest = {"files": _listing(folder), **extra}
    write_json(folder / MANIFEST, manifest)
    return manifest


def verify_manifest(folder: Path | str) -> dict[str, Any]:
    """Return the manifest of `folder` if it still describes it exactly, else name the first culprit.

    An extra file is an error too: a consumer must never pick up what no producer declared.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST)
    recorded, present = manifest["files"], _listing(folder)
    for name in sorted(recorded.keys() | present.keys()):
        if recorded.get(name) != present.get(name):
            state = "missing" if name not in present else "unexpected" if name not in recorded else "changed"
            raise UserError(f"{folder / name} is {state}", "run `dvc checkout` or `make reproduce` to restore it")
    return manifest
