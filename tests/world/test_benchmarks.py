"""Benchmarks: test scenes, held-out wordings, balanced answers, chance levels computed from the items."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mmlib.errors import UserError
from mmlib.world import benchmarks, nouns, questions
from mmlib.world.scenes import draw_scenes

SCENES = draw_scenes("test", 5000, 0)
BUILT = {b.name: benchmarks.build(b, SCENES, 400, 0) for b in benchmarks.BENCHMARKS}


def test_there_are_as_many_and_as_different_as_promised():
    assert len(BUILT) >= 8 and all(len(items) >= 400 for items in BUILT.values())
    assert {"compare", "odd"} <= {b.name for b in benchmarks.BENCHMARKS if not b.trained}
    trained = {kind for kind, sets in questions.wordings().items() if sets["training"]}
    for b in benchmarks.BENCHMARKS:
        assert b.trained == bool(set(b.kinds) & trained)
    assert benchmarks.by_name_of("referring").judge == "box"
    with pytest.raises(UserError, match="unknown benchmark `smell`"):
        benchmarks.by_name_of("smell")


@pytest.mark.parametrize("name", BUILT)
def test_items_are_different_seeded_balanced_and_judged(name):
    benchmark, items = benchmarks.by_name_of(name), BUILT[name]
    assert benchmarks.build(benchmark, SCENES, 400, 0) == items != benchmarks.build(benchmark, SCENES, 400, 1)
    assert len({(item.scene.id, item.text) for item in items}) == len({item.id for item in items}) == len(items)
    shares = Counter(item.answer for item in items)
    assert not benchmark.balance or max(shares.values()) / len(items) <= benchmark.balance + 1 / len(items)
    assert all(benchmarks.judge(benchmark, item.answer, item) == 1.0 for item in items)
    assert not any(benchmarks.judge(benchmark, "nonsense", item) for item in items)
    assert 0 < benchmarks.chance(benchmark, items) < 0.65


@pytest.mark.parametrize(("name", "level"), [("existence", 0.5), ("compare", 0.5), ("pairing", 0.5), ("choice", 0.25)])
def test_chance_of_balanced_benchmarks_is_known(name, level):
    assert benchmarks.chance(benchmarks.by_name_of(name), BUILT[name]) == pytest.approx(level, abs=0.01)


def test_chance_is_the_best_constant_per_question_kind():
    benchmark = benchmarks.Benchmark("x", ("a", "b"))
    items = [benchmarks.Item(str(i), SCENES[0], "?", answer, kind)
             for i, (kind, answer) in enumerate([("a", "red"), ("a", "red"), ("a", "blue"), ("b", "yes")])]  # fmt: skip
    assert benchmarks.chance(benchmark, items) == 0.75


def test_chance_of_the_odd_one_is_a_guess_among_the_things():
    items = BUILT["odd"]
    guesses = [1 / len({o.noun for o in item.scene.objects}) for item in items]
    assert benchmarks.chance(benchmarks.by_name_of("odd"), items) == pytest.approx(sum(guesses) / len(items))
    assert all(item.answer in {o.noun for o in item.scene.objects} for item in items)


def test_existence_has_three_kinds_of_negatives():
    items = BUILT["existence"]
    popular = set(benchmarks.frequencies()[0][: benchmarks.POPULAR])
    for category in benchmarks.NEGATIVES:
        part = [item for item in items if item.category == category]
        assert len(part) > 100 and {item.answer for item in part} == {"yes", "no"}
        assert sum(item.answer == "yes" for item in part) * 2 == pytest.approx(len(part), abs=2)
        for item in part:
            noun = re.search(r"\ban? (\w+)", item.text)[1]
            assert (item.scene.count(noun) > 0) == (item.answer == "yes")
            if item.answer == "no" and category == "popular":
                assert noun in popular
    close = [item for item in items if item.category == "adversarial" and item.answer == "no"]
    near = [nouns.by_name()[re.search(r"\ban? (\w+)", i.text)[1]].place
            in {nouns.by_name()[o.noun].place for o in i.scene.objects} for i in close]  # fmt: skip
    assert sum(near) / len(near) > 0.9


def test_training_scenes_and_impossible_numbers_are_refused():
    with pytest.raises(UserError, match="scene train0-000000 is a training scene"):
        benchmarks.build(benchmarks.BENCHMARKS[0], draw_scenes("train", 5, 0), 5, 0)
    with pytest.raises(UserError, match=r"10 scenes give .* of 400 items of benchmark odd"):
        benchmarks.build(benchmarks.by_name_of("odd"), SCENES[:10], 400, 0)
