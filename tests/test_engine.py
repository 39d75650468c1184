"""shard_map: equal bytes on every engine, resume after kill -9, faults named and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmlib import engine, store
from mmlib.errors import UserError

SHARDS = [{"name": f"s{i}", "value": i} for i in range(6)]


def square(shard):
    log = os.environ.get("SHARD_LOG")
    if log:
        with open(log, "a") as stream:
            stream.write(f"{shard['name']}\n")
    time.sleep(float(os.environ.get("SHARD_SLEEP", "0")))
    if shard["name"] == os.environ.get("SHARD_POISON"):
        raise ValueError("poisoned")
    if shard["name"] == os.environ.get("SHARD_REFUSED"):
        raise UserError("the culprit", "the remedy")
    return {"square": shard["value"] ** 2}


def run(root, shards=SHARDS, key=None, **options):
    return engine.shard_map(square, shards, stage="demo", key=key or {"k": 1}, root=root, **options)


def test_engines_agree_and_keep_order(tmp_path):
    serial = run(tmp_path / "a", engine="serial")
    process = run(tmp_path / "b", engine="process", workers=2)
    assert serial == process == [{"square": i * i} for i in range(6)]

    def stored(name):
        folder = tmp_path / name / ".scratch/shards/demo"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert stored("a") == stored("b")


def test_finished_shards_are_not_repeated_and_key_changes_repeat_all(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("SHARD_LOG", str(log))
    run(tmp_path, SHARDS[:4], engine="serial")
    run(tmp_path, engine="serial")
    assert log.read_text().split() == [s["name"] for s in SHARDS]
    run(tmp_path, key={"k": 2}, engine="serial")
    assert len(log.read_text().split()) == 12


@pytest.mark.parametrize("engine_name", engine.ENGINES)
def test_a_user_s_mistake_comes_out_of_a_worker_as_it_was_said(tmp_path, monkeypatch, engine_name):
    monkeypatch.setenv("SHARD_REFUSED", "s2")
    with pytest.raises(UserError, match=r"shard s2 failed .*the culprit; the remedy"):
        run(tmp_path, engine=engine_name, workers=2)


@pytest.mark.parametrize("engine_name", engine.ENGINES)
def test_a_poisoned_shard_is_named_and_the_rest_is_kept(tmp_path, monkeypatch, engine_name):
    monkeypatch.setenv("SHARD_POISON", "s3")
    with pytest.raises(UserError, match=r"shard s3 failed \(ValueError: poisoned\)"):
        run(tmp_path, engine=engine_name, workers=1)
    assert len(list((tmp_path / ".scratch/shards/demo").iterdir())) >= 3


def test_a_damaged_shard_is_computed_again(tmp_path):
    run(tmp_path, engine="serial")
    path = sorted((tmp_path / ".scratch/shards/demo").iterdir())[0]
    good = path.read_text()
    for damaged in (good.replace('"square": ', '"square": 1'), good[: len(good) // 2], ""):
        path.write_text(damaged)
        assert run(tmp_path, engine="serial") == [{"square": i * i} for i in range(6)]
        assert path.read_text() == good


def test_kill_9_then_resume_computes_only_what_is_missing(tmp_path):
    log = tmp_path / "log"
    code = (
        "from tests.test_engine import run\nimport sys, pathlib\n"
        "run(pathlib.Path(sys.argv[1]), engine='process', workers=2)"
    )
    environment = {**os.environ, "SHARD_LOG": str(log), "SHARD_SLEEP": "0.5"}
    here = Path(__file__).resolve().parent.parent
    job = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment, cwd=here)
    folder = tmp_path / ".scratch/shards/demo"
    deadline = time.time() + 60
    while not (folder.exists() and any(folder.glob("*.json"))) and time.time() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.wait()
    time.sleep(1.5)  # workers notice their parent's death; a shard under way may still be finished
    finished = len(list(folder.glob("*.json")))
    started = len(log.read_text().split())
    assert 1 <= finished < len(SHARDS)
    time.sleep(1)
    assert len(log.read_text().split()) == started, "a worker outlived its parent"
    assert run(tmp_path, engine="serial") == [{"square": i * i} for i in range(6)]


def test_duplicates_and_unknown_engine_are_refused(tmp_path):
    with pytest.raises(UserError, match="two shards are equal"):
        run(tmp_path, [SHARDS[0], SHARDS[0]], engine="serial")
    with pytest.raises(UserError, match="unknown engine `dask`"):
        run(tmp_path, engine="dask")


def test_stage_key_follows_files_and_parameters_but_not_prose(tmp_path):
    for name in ("code.py", "nb.ipynb", "data/x.txt"):
        store.atomic_write(tmp_path / name, name)
    deps = ["code.py", "nb.ipynb", "data"]
    first = engine.stage_key(deps, {"a": 1}, tmp_path)
    store.atomic_write(tmp_path / "nb.ipynb", "new prose")
    assert engine.stage_key(deps, {"a": 1}, tmp_path) == first
    assert engine.stage_key(deps, {"a": 2}, tmp_path) != first
    store.atomic_write(tmp_path / "data/x.txt", "new data")
    assert engine.stage_key(deps, {"a": 1}, tmp_path) != first
