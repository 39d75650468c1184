"""fsck finds damage that DVC itself would trust: in outputs, in folders, in the cache."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from mmlib import fsck, store
from mmlib.errors import UserError


def cached(root, data: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(data).hexdigest() + suffix
    store.atomic_write(root / ".dvc/cache/files/md5" / md5[:2] / md5[2:], data)
    return md5


@pytest.fixture
def project(tmp_path):
    """One file output, one folder as data, both backed by the cache."""
    file_md5, member_md5 = cached(tmp_path, b"result"), cached(tmp_path, b"member")
    listing = json.dumps([{"md5": member_md5, "relpath": "a.txt"}]).encode()
    folder_md5 = cached(tmp_path, listing, ".dir")
    store.atomic_write(tmp_path / "results/x.json", b"result")
    store.atomic_write(tmp_path / "data/a.txt", b"member")
    (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {folder_md5}\n  path: data\n")
    (tmp_path / "dvc.lock").write_text(f"stages:\n  s:\n    outs:\n    - path: results/x.json\n      md5: {file_md5}\n")
    return tmp_path, {"file": file_md5, "member": member_md5, "folder": folder_md5}


def test_a_whole_project_passes(project, capsys):
    fsck.fsck(project[0])
    assert "2 recorded outputs are whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "remedy"), [("results/x.json", "dvc checkout results/x.json"), ("data/a.txt", "data")]
)
def test_a_flipped_byte_is_named(project, path, remedy):
    (project[0] / path).write_bytes(b"Xember")
    with pytest.raises(UserError, match=f"{path} is missing or differs.*{remedy}"):
        fsck.fsck(project[0])


def test_what_is_kept_in_git_is_restored_from_git(project):
    root, _ = project
    for command in (["init", "-q"], ["add", "results/x.json"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "results/x.json").write_bytes(b"Xesult")
    with pytest.raises(UserError, match=r"run `git checkout results/x\.json`"):
        fsck.fsck(root)


def test_a_missing_member_of_a_folder_is_named(project):
    (project[0] / "data/a.txt").unlink()
    with pytest.raises(UserError, match=r"data/a\.txt is missing"):
        fsck.fsck(project[0])


@pytest.mark.parametrize("which", ["file", "member", "folder"])
def test_a_damaged_cache_object_is_named(project, which):
    root, hashes = project
    md5 = hashes[which]
    path = root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    path.write_bytes(path.read_bytes().replace(b"m", b"n").replace(b"result", b"resulx"))
    with pytest.raises(UserError, match=r"cache object .* is damaged"):
        fsck.fsck(root)


def test_a_clean_clone_without_cache_and_outputs_passes(project):
    import shutil

    root, _ = project
    for folder in (".dvc", "data", "results"):
        shutil.rmtree(root / folder)
    fsck.fsck(root)
