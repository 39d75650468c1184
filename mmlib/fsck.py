"""Rehash what dvc.lock and data.dvc record: DVC trusts its cache on checkout, this does not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from mmlib import config, store
from mmlib.errors import UserError


def fsck(root: Path) -> None:
    """Verify every recorded output on disk and every object of the local cache that backs it.

    Raises:
        UserError: naming the first damaged file and how to restore it.
    """
    outs = _recorded(root)
    for out in outs:
        _check_cache(root, out["md5"])  # first: a folder is checked against its listing in the cache
        _check_path(root, out)
    print(f"fsck: {len(outs)} recorded outputs are whole")


def _recorded(root: Path) -> list[dict[str, Any]]:
    outs = list(config.read_yaml(root / "data.dvc")["outs"])
    if (root / "dvc.lock").exists():
        for stage in config.read_yaml(root / "dvc.lock")["stages"].values():
            outs += stage.get("outs", [])
    return outs


def _cache_path(root: Path, md5: str) -> Path:
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def _check_path(root: Path, out: dict[str, Any]) -> None:
    path = root / out["path"]
    if path.is_file() and store.md5_file(path) != out["md5"]:
        raise _damaged(root, path, out["path"])
    listing = _cache_path(root, out["md5"])
    if path.is_dir() and listing.exists():
        for entry in json.loads(listing.read_text()):
            member = path / entry["relpath"]
            if not member.is_file() or store.md5_file(member) != entry["md5"]:
                raise _damaged(root, member, out["path"])


def _check_cache(root: Path, md5: str) -> None:
    path = _cache_path(root, md5)
    if not path.exists():
        return  # a fresh clone has reports and metrics, not the cached outputs
    if store.md5_file(path) != md5.removesuffix(".dir"):
        raise UserError(f"cache object {path} is damaged", "delete it and run `make reproduce`")
    if md5.endswith(".dir"):
        for entry in json.loads(path.read_text()):
            _check_cache(root, entry["md5"])


def _damaged(root: Path, path: Path, out: str) -> UserError:
    # Metrics and evidence are kept in git; `dvc checkout` passes over them without a word.
    in_git = subprocess.run(["git", "ls-files", "--error-unmatch", out], cwd=root, capture_output=True).returncode == 0
    remedy = f"git checkout {out}" if in_git else f"dvc checkout {out} --force"
    return UserError(f"{path} is missing or differs from its record", f"run `{remedy}`")
