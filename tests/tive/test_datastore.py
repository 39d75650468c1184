"""The store: what was written comes back, an interrupted run goes on, foreign and broken shards are refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmlib import store
from mmlib.errors import UserError
from mmlib.formats.llava import Record, Turn
from mmlib.tive import influence, values
from mmlib.tive.datastore import Datastore, Run, model_fingerprint, pool_fingerprint
from mmlib.tive.influence import influence as of_store

DRAW = np.random.default_rng(0)
N, K, TASKS = 23, 8, DRAW.integers(0, 3, 23)
VECTORS = (DRAW.normal(size=(N, K)) * DRAW.uniform(1e-3, 1e6, (N, 1))).astype(np.float32)
NORMS = np.linalg.norm(VECTORS, axis=1) * 1.5
RUN = Run("pool-a", "model-a", N, K, 7, ("norm",), {"seed": 0})


def filled(folder, run=RUN, shards=None):
    made = Datastore(folder, run)
    for number, (start, stop) in enumerate(run.shards()):
        if shards is None or number in shards:
            made.write(number, VECTORS[start:stop], {"norm": NORMS[start:stop]})
    return made


def test_rows_come_back(tmp_path):
    made = filled(tmp_path)
    made.verify()
    units = VECTORS / np.linalg.norm(VECTORS, axis=1)[:, None]
    read = np.concatenate([made.vectors(i) for i in range(4)])
    assert read.dtype == np.float16 and np.abs(read - units).max() < 2**-11
    assert np.array_equal(made.column("norm"), NORMS)
    assert np.allclose(made.column("projected_norm"), np.linalg.norm(VECTORS, axis=1), rtol=1e-6)
    assert Datastore.open(tmp_path, "pool-a").run == RUN


def test_an_interrupted_run_goes_on(tmp_path):
    assert filled(tmp_path, shards={0, 2}).todo() == [1, 3]
    with pytest.raises(UserError, match=r"shard-00001.json is missing"):
        Datastore.open(tmp_path).vectors(1)
    filled(tmp_path, shards=Datastore(tmp_path, RUN).todo())
    assert Datastore.open(tmp_path).todo() == []
    filled(tmp_path / "whole")
    for path in tmp_path.glob("shard-*"):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


def test_a_shard_is_not_there_until_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "write_json", _killed(store.write_json))
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path)
    monkeypatch.undo()
    assert Datastore.open(tmp_path).todo() == [0, 1, 2, 3]


def _killed(real):
    def write(path, facts):
        if path.name.startswith("shard"):
            raise KeyboardInterrupt
        real(path, facts)

    return write


@pytest.mark.parametrize("change", [{"pool": "pool-b"}, {"model": "model-b"}, {"size": 4}, {"recipe": {"seed": 1}}])
def test_another_run_is_refused_by_what_differs(tmp_path, change):
    filled(tmp_path)
    with pytest.raises(UserError, match=f"belongs to another run .*{next(iter(change))} "):
        Datastore(tmp_path, replace(RUN, **change))


def test_rows_of_another_pool_are_refused(tmp_path):
    filled(tmp_path)
    with pytest.raises(UserError, match="belong to pool pool-a, not to pool-b"):
        Datastore.open(tmp_path, "pool-b")
    how = {"work": tmp_path / "w", "stage": "t", "root": tmp_path, "engine": "serial"}
    with pytest.raises(UserError, match="belong to pool pool-a, not to pool-b"):
        of_store(tmp_path, TASKS, 3, pool="pool-b", **how)
    with pytest.raises(UserError, match="22 task labels for the 23 rows"):
        of_store(tmp_path, TASKS[:-1], 3, pool="pool-a", **how)


def test_shards_of_another_run_are_refused(tmp_path):
    made = filled(tmp_path / "a")
    filled(tmp_path / "b", replace(RUN, model="model-b"))
    for path in (tmp_path / "b").glob("shard-00001*"):
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"shard-00001.json holds rows 7 to 14 of run"):
        made.verify()
    with pytest.raises(UserError, match=r"shard-00001"):
        of_store(tmp_path / "a", TASKS, 3, work=tmp_path / "w", stage="t", root=tmp_path, engine="serial")


def test_swapped_and_damaged_shards_are_named(tmp_path):
    made = filled(tmp_path)
    first, second = tmp_path / "shard-00000.json", tmp_path / "shard-00001.json"
    kept = first.read_text()
    first.write_text(second.read_text())
    with pytest.raises(UserError, match=r"holds rows 7 to 14 of run .* rows 0 to 7"):
        made.vectors(0)
    first.write_text(kept)
    path = tmp_path / "shard-00002.vectors.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"shard-00002.vectors.npy changed"):
        made.verify()
    path.write_bytes(data[:-4])
    with pytest.raises(UserError, match=r"shard-00002.vectors.npy cannot be read"):
        made.vectors(2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_bad_gradients_are_named_by_their_row_in_the_pool(tmp_path, bad):
    vectors = VECTORS[7:14].copy()
    vectors[3] = bad
    made = Datastore(tmp_path, RUN)
    with pytest.raises(UserError, match="1 records is NaN, infinite or zero: row 10"):
        made.write(1, vectors, {"norm": NORMS[7:14]})
    norms = NORMS[7:14].copy()
    norms[0] = np.nan
    with pytest.raises(UserError, match="row 7"):
        made.write(1, VECTORS[7:14], {"norm": norms})
    with pytest.raises(UserError, match=r"give \(7, 8\) and norm"):
        made.write(1, VECTORS[:6], {"norm": NORMS[:6]})
    assert made.todo() == [0, 1, 2, 3]


@pytest.mark.parametrize("engine", ["serial", "process"])
def test_two_passes_equal_the_definition(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(influence, "ROWS", 3)
    filled(tmp_path / "s")
    made = of_store(tmp_path / "s", TASKS, 3, work=tmp_path / engine, stage="t", root=tmp_path / engine, engine=engine)
    wanted = values.instance_influence(VECTORS, TASKS, 3)
    assert np.abs(made - wanted).max() < 1e-3
    read = np.concatenate([Datastore.open(tmp_path / "s").vectors(i) for i in range(4)]).astype(float)
    means = np.stack([read[t == TASKS].mean(0) for t in range(3)])
    assert np.abs(made - (read * means[TASKS]).sum(1)).max() < 1e-6
    assert np.abs(made - values.instance_influence(VECTORS, np.roll(TASKS, 1), 3)).max() > 0.01, "planted: other tasks"


def test_the_size_of_shards_does_not_matter(tmp_path):
    made = []
    for size in (5, 23):
        run = replace(RUN, rows_per_shard=size)
        filled(tmp_path / str(size), run)
        how = {"work": tmp_path / f"w{size}", "stage": "t", "root": tmp_path / f"w{size}", "engine": "serial"}
        made.append(of_store(tmp_path / str(size), TASKS, 3, **how))
    assert np.allclose(*made, rtol=0, atol=1e-6)


def test_fingerprints_see_order_text_and_weights():
    import torch

    turns = (Turn("human", "a"), Turn("gpt", "b"))
    pool = [Record("1", None, turns, "x"), Record("2", None, turns, "y")]
    same = pool_fingerprint([replace(r, dataset="z") for r in pool])
    assert pool_fingerprint(pool) == same
    assert len({same, pool_fingerprint(pool[::-1]), pool_fingerprint([pool[0], replace(pool[1], id="3")])}) == 3
    model = torch.nn.Linear(3, 2)
    before = model_fingerprint(model)
    assert model_fingerprint(model) == before
    with torch.no_grad():
        model.weight[0, 0] += 1e-6
    assert model_fingerprint(model) != before
