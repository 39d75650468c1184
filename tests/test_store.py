"""Files are whole or absent, and every fault in a manifest is named."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from mmlib import store
from mmlib.errors import UserError


def test_round_trip_is_canonical(tmp_path):
    obj = {"b": [1, 2.5, None], "a": {"x": "ü", "rows": [[1, 2], [3]]}}
    store.write_json(tmp_path / "x.json", obj)
    first = (tmp_path / "x.json").read_bytes()
    store.write_json(tmp_path / "x.json", dict(reversed(obj.items())))
    assert store.read_json(tmp_path / "x.json") == obj and (tmp_path / "x.json").read_bytes() == first
    assert b'"b": [1, 2.5, null]' in first  # a list of scalars stays on one line


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": float("inf")}])
def test_json_refuses_what_is_not_json(tmp_path, bad):
    with pytest.raises(ValueError):
        store.write_json(tmp_path / "x.json", bad)
    assert not list(tmp_path.iterdir())


def test_json_refuses_keys_that_could_collide():
    with pytest.raises(TypeError):
        store.dump_json({1: "a", "1": "b"})


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk full"), (errno.EROFS, "cannot write")])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, code, words):
    target = tmp_path / "result.json"
    store.atomic_write(target, "old")

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=words):
        store.atomic_write(target, "new")
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_kill_during_writes_never_leaves_a_torn_file(tmp_path):
    target = tmp_path / "x.json"
    code = (
        "from mmlib import store\nimport sys\ni = 0\n"
        "while True:\n    i += 1\n    store.write_json(sys.argv[1], {'i': i, 'pad': ['x' * 50] * 20000})\n"
        "    print(i, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    for _ in range(3):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert store.read_json(target)["i"] >= 3


def test_manifest_names_each_fault(tmp_path):
    for name in ("a.bin", "sub/b.bin"):
        store.atomic_write(tmp_path / name, name * 10)
    store.write_manifest(tmp_path, source="test")
    assert store.verify_manifest(tmp_path)["source"] == "test"

    original = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(b"X" + original[1:])
    with pytest.raises(UserError, match=r"a\.bin is changed"):
        store.verify_manifest(tmp_path)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(UserError, match=r"a\.bin is missing"):
        store.verify_manifest(tmp_path)
    (tmp_path / "a.bin").write_bytes(original)
    (tmp_path / "c.bin").write_text("stray")
    with pytest.raises(UserError, match=r"c\.bin is unexpected"):
        store.verify_manifest(tmp_path)


def test_missing_and_torn_json_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json is missing"):
        store.read_json(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"a": [1, 2')
    with pytest.raises(UserError, match=r"torn\.json is not valid JSON"):
        store.read_json(tmp_path / "torn.json")


def test_root_is_found_from_a_notebook_folder_and_missed_elsewhere(root, tmp_path):
    assert store.project_root(root / "notebooks") == root
    with pytest.raises(UserError, match="no project found"):
        store.project_root(tmp_path)
