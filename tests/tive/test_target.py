"""A target: rows decide it, not their order; what it is said to have seen is what the trainer was given."""

from __future__ import annotations

from collections import Counter

import pytest

from mmlib.errors import UserError
from mmlib.models import align, clip, llava
from mmlib.tive import reference, target
from mmlib.tive.labels import task_numbers
from mmlib.world import benchmarks, knobs, pool, vocabulary
from mmlib.world.scenes import draw_scenes
from tests.world.conftest import renderer as renderer  # the fixture

SCENES = draw_scenes("train", 120, 0)
RECORDS = pool.build(SCENES, 130, 0)
RECIPE = {"pool_share": 0.5, "pool_seed": 0, "steps": 5, "batch": 4, "learning_rate": 0.01, "muon_learning_rate": 0.0,
          "rehearsed": 1, "test_seed": 0, "test_scenes": 400, "items": 8}  # fmt: skip


@pytest.fixture
def world(tmp_path_factory, renderer, monkeypatch):
    """A small pool, an untrained model and three benchmarks in place of the world's."""
    root = tmp_path_factory.mktemp("project")
    tokenizer = vocabulary.build_tokenizer()
    tower = clip.build_clip(tokenizer, 16, 2, 21, 0)
    llava.build_llava(tower, tokenizer, {"width": 32, "layers": 1}, 0).save_pretrained(root / target.SOURCE)
    pictures = align.images_of(RECORDS, SCENES, renderer)
    scenes = draw_scenes("test", 400, 0)
    built = {name: benchmarks.build(benchmarks.by_name_of(name), scenes, 8, 0) for name in ("color", "odd")}
    monkeypatch.setattr(target.store, "project_root", lambda: root)
    monkeypatch.setattr(target, "world_pool", lambda: (RECORDS, pictures))
    monkeypatch.setattr(target, "world_renderer", lambda: renderer)
    monkeypatch.setattr(target, "tests", lambda *args: built)
    return root


def run(rows, seed=0, **recipe):
    return target.evaluate({"name": "x", "seed": seed, "rows": rows, "recipe": {**RECIPE, **recipe}})


def test_every_kind_of_record_keeps_its_share():
    rows = target.study_rows(RECORDS, RECIPE)
    assert rows == sorted(set(rows)) == target.study_rows(RECORDS, RECIPE) != target.study_rows(
        RECORDS, {**RECIPE, "pool_seed": 1})  # fmt: skip
    before, after = (Counter(map(pool.kind_of, part)) for part in (RECORDS, [RECORDS[row] for row in rows]))
    assert all(after[kind] == max(1, round(count / 2)) for kind, count in before.items())
    assert target.study_rows(RECORDS, {**RECIPE, "pool_share": 1.0}) == list(range(len(RECORDS)))
    with pytest.raises(UserError, match=r"a share of 1\.5"):
        target.study_rows(RECORDS, {**RECIPE, "pool_share": 1.5})


def test_rows_decide_a_run_and_their_order_does_not(world):
    rows = list(range(0, 40, 3))
    one = run(rows)
    assert one == run(rows[::-1]) and "seconds" not in one
    assert one["curve"] != run([*rows, *rows[:6]])["curve"]  # twice in the list is twice as often
    assert {len(values) for values in one["scores"].values()} == {8} and list(one["scores"]) == ["color", "odd"]
    for wrong in ([], [0, len(RECORDS)], [-1]):
        with pytest.raises(UserError, match="rows of a pool of"):
            run(wrong)


def test_what_was_seen_is_what_the_trainer_got(world, monkeypatch):
    tokens, answers = [], []

    def watch(model, collate, *, steps, batch, **other):
        for step in range(steps):
            made = collate(list(range(step * batch, (step + 1) * batch)))
            tokens.append(int(made["attention_mask"].sum()))
            answers.append(int((made["labels"] >= 0).sum()))
        return []

    monkeypatch.setattr(align, "fit", watch)
    seen = run(list(range(20)), seed=3)["seen"]
    rehearsed = tokens.pop(-1), answers.pop(-1)  # of five steps the fifth rehearses
    assert all(rehearsed) and seen["tokens"] == sum(tokens) and seen["answers"] == sum(answers)
    assert seen["samples"] == 16 and seen["records"] == 20 and seen["unique"] == 16
    assert run([5] * 20)["seen"]["unique"] == 1


def test_the_warm_up_takes_equally_many_of_every_task():
    rows = reference.warm_up_rows(RECORDS, 0.16, 0)
    tasks, names = task_numbers(RECORDS)
    taken = Counter(names[tasks[row]] for row in rows)
    sizes = Counter(names[task] for task in tasks)
    most = max(taken.values())
    assert len(rows) == len(set(rows)) == int(0.16 * len(RECORDS))
    assert all(count >= most - 1 or count == sizes[name] for name, count in taken.items()) and len(taken) == len(names)
    assert rows != reference.warm_up_rows(RECORDS, 0.16, 1)


def test_faults_are_planted_where_they_were_asked_for(world):
    shard = {"recipe": RECIPE, "copies": 0.0, "wrong": 0.0, "seed": 0, "settings": {"wrong_task": "vqav2"}}
    plain, none = reference.altered_pool(shard)
    assert not none and plain == [RECORDS[row] for row in target.study_rows(RECORDS, RECIPE)]
    doubled, _ = reference.altered_pool({**shard, "copies": 0.1})
    assert doubled == knobs.with_duplicates(plain, 0.1, 0) and len(doubled) == round(1.1 * len(plain))
    spoilt, wrong = reference.altered_pool({**shard, "wrong": 0.5})
    changed = {a.id for a, b in zip(plain, spoilt, strict=True) if a != b}
    assert changed == wrong and wrong and all(r.dataset == "vqav2" for r in plain if r.id in wrong)


def test_a_reference_model_gives_what_its_parts_give(world):
    import numpy as np

    from mmlib.tive import values
    from mmlib.tive.gradients import core_of, gradient_pass
    from mmlib.tive.samples import cached_features, encode_records

    settings = {"left_out": ["textcaps"], "rank": 2, "warm_up_steps": 2, "warm_up_batch": 4, "size": 32,
                "warm_up_learning_rate": 0.01, "rows_per_shard": 20, "wrong_task": "vqav2", "less_items": 2,
                "less_scenes": 400}  # fmt: skip
    shard = {"name": "seed 0", "stage": "demo", "seed": 0, "warm_up": 0.2, "copies": 0.0, "wrong": 0.0,
             "variants": {"whole": {"size": None}}, "settings": settings, "recipe": RECIPE}  # fmt: skip
    made = reference.measure(shard)
    records, pictures = reference.altered_pool(shard)[0], target.world_pool()[1]
    model, _ = reference.train(records, pictures, settings, 0, 0.2)
    samples = encode_records(vocabulary.build_tokenizer(), records, 9)
    own = gradient_pass(model, samples, features=cached_features(core_of(model), dict(pictures)), size=32)
    tasks, names = task_numbers(records)
    columns = {name: np.array(column) for name, column in made["columns"].items()}
    assert np.allclose(columns["norm"], own.columns["norm"], rtol=1e-4)
    expected = values.instance_influence(own.vectors, tasks, len(names))
    assert np.allclose(columns["influence"], expected, atol=2e-3)  # float16 rows
    kept = np.array([record.dataset != "textcaps" for record in records])
    over_all = values.instance_influence(own.vectors[kept], np.zeros(kept.sum(), int), 1)
    assert np.allclose(columns["influence_all"][kept], over_all, atol=2e-3)
    assert np.allclose(made["variants"]["whole"]["norm"], columns["norm"], rtol=1e-4)
    assert len(set(columns["less"])) > 1 and made["ids"] == [record.id for record in records]
    assert made["columns"] == reference.measure(shard)["columns"]  # the same bits, from the store as well
