"""Quotas, soft sampling and the files: exact sums, exact probabilities, planted no-ops."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.formats.llava import Record, Turn, read_records
from mmlib.formats.reading import Skips
from mmlib.store import read_json, sha256_file
from mmlib.tive import labels, sampling, selection
from mmlib.tive.allocation import allocate, round_to, warm_up


@pytest.mark.parametrize("rule", ["duplicate", "cap"])
def test_quotas_add_up_exactly(rule):
    draw = np.random.default_rng(0)
    for _ in range(300):
        sizes = draw.integers(1, 200, 9)
        weights = draw.exponential(size=9) ** 2
        budget = int(draw.integers(0, sizes.sum() + 1))
        quota = allocate(sizes, weights, budget, rule)
        assert quota.sum() == budget and (quota >= 0).all()
        exact = budget * weights / weights.sum()
        if rule == "duplicate":
            assert (np.abs(quota - exact) < 1).all()
        else:
            assert (quota <= sizes).all()
            below = quota < sizes  # those that are not full keep the ratios of their weights
            ratio = quota[below] / weights[below]
            assert below.sum() < 2 or np.ptp(ratio) <= 2 / weights[below].min()


def test_released_floors_are_at_most_one_record_apart():
    sizes, weights, budget = np.array([500, 40, 300]), np.array([1.0, 2.0, 4.0]), 100
    assert (allocate(sizes, weights, budget) - np.floor(budget * weights / 7) <= 1).all()


def test_a_task_smaller_than_its_quota():
    sizes, weights = np.array([10, 100, 100]), np.array([2.0, 1.0, 1.0])
    assert allocate(sizes, weights, 80, "duplicate").tolist() == [40, 20, 20]
    assert allocate(sizes, weights, 80, "cap").tolist() == [10, 35, 35]
    tasks, values = np.repeat([0, 1, 2], sizes), np.zeros(210)
    names = ["a", "b", "c"]
    doubled = selection.by_task(tasks, names, np.array([25, 20, 20]), values, 0, q=0.0)
    counts = Counter(doubled.rows[:25].tolist())
    assert set(counts) == set(range(10)) and sorted(counts.values()) == [2] * 5 + [3] * 5
    assert doubled.report[0]["duplicates"] == 15 and doubled.unique == 50


def test_quotas_refuse_what_cannot_be():
    for sizes, weights, budget, rule, message in (
        ([5, 5], [1, np.nan], 3, "cap", "task weights"),
        ([5, 5], [0, 0], 3, "cap", "task weights"),
        ([5, 0], [1, 1], 3, "duplicate", "task number 1 is empty"),
        ([5, 5], [1, 0], 6, "cap", "a budget of 6 records, 5 are there"),
        ([5, 5], [1, 1], -1, "cap", "a budget of -1"),
    ):
        with pytest.raises(UserError, match=message):
            allocate(np.array(sizes), np.array(weights, float), budget, rule)


def test_warm_up_is_equal_per_task_and_survives_a_small_task():
    assert warm_up(np.full(10, 66_530), 0.08).tolist() == [5323] * 4 + [5322] * 6
    sizes = np.array([1000, 30, 970])
    quota = warm_up(sizes, 0.1)
    assert quota.sum() == 200 and quota[1] == 30 and abs(quota[0] - quota[2]) <= 1


def test_round_to_takes_the_largest_remainders():
    assert round_to(np.array([1.4, 2.5, 0.1]), 4).tolist() == [1, 3, 0]
    assert round_to(np.array([2.9999999999, 1.0]), 4).tolist() == [3, 1]


def plackett_luce(values, q, count):
    """Exact probability of every ordered draw without replacement with P ∝ exp(q v)."""
    weights, table = np.exp(q * np.asarray(values)), {}
    for order in itertools.permutations(range(len(values)), count):
        p, left = 1.0, weights.sum()
        for i in order:
            p, left = p * weights[i] / left, left - weights[i]
        table[order] = p
    return table


def chi_square(found, wanted, trials):
    return sum((found[key] - trials * p) ** 2 / (trials * p) for key, p in wanted.items())


@pytest.mark.parametrize("q", [2.0, -2.0, 0.0])
def test_gumbel_top_n_has_plackett_luce_probabilities(q):
    values, trials, draw = np.array([0.0, 0.3, 0.9, 1.1]), 12_000, np.random.default_rng(1)
    found = Counter(tuple(sampling.gumbel_top(values, 2, draw, q).tolist()) for _ in range(trials))
    wanted = plackett_luce(values, q, 2)
    assert abs(sum(wanted.values()) - 1) < 1e-12 and set(found) <= set(wanted)
    limit = 31.3  # 0.999 quantile of chi-square with 11 degrees of freedom
    assert chi_square(found, wanted, trials) < limit
    assert chi_square(found, plackett_luce(values, q + 0.5, 2), trials) > limit, "the test cannot tell another q"


def test_signs_and_limits_of_q():
    values = np.linspace(-1, 1, 400)
    means = {q: values[sampling.gumbel_top(values, 100, np.random.default_rng(0), q)].mean()
             for q in (-math.inf, -5.0, 0.0, 5.0, math.inf)}  # fmt: skip
    assert list(means.values()) == sorted(means.values())
    assert means[math.inf] == values[300:].mean() and means[-math.inf] == values[:100].mean()
    assert abs(means[0.0]) < 0.15 and means[5.0] > 0.4 and means[-5.0] < -0.4


def test_equal_seeds_share_their_noise():
    values = np.random.default_rng(2).normal(size=300)
    drawn = [set(sampling.gumbel_top(values, 100, sampling.generator(s, "t"), q).tolist())
             for s, q in ((0, 0.0), (0, 0.1), (1, 0.0))]  # fmt: skip
    assert len(drawn[0] & drawn[1]) > 80 and len(drawn[0] & drawn[2]) < 60
    assert sampling.generator(0, "a").random() != sampling.generator(0, "b").random()


def test_effective_share_tells_a_no_op():
    """The released inverse temperature on mean cosines prefers nothing; the manifest says so."""
    values = np.random.default_rng(3).uniform(-1, 1, 1000)
    assert sampling.effective_share(values, 0.001) > 0.999 > 0.9 > sampling.effective_share(values, 3)
    assert (
        sampling.effective_share(values, 0) == pytest.approx(1) and sampling.effective_share(values, math.inf) == 1e-3
    )
    two = sampling.effective_share(np.array([0.0, np.log(3)]), 1.0)
    assert two == pytest.approx(16 / (2 * 10))
    tasks = np.zeros(1000, int)
    chosen = [selection.by_task(tasks, ["t"], np.array([100]), values, 0, q=q) for q in (0.001, 30.0, 0.0)]
    assert [c.report[0]["no_effect"] for c in chosen] == [True, False, False]
    assert "as good as uniform" in selection.table(chosen[0]) and "as good" not in selection.table(chosen[1])
    assert abs(chosen[0].report[0]["lift"]) < 0.3 and chosen[1].report[0]["lift"] > 0.9


def test_top_within_class_keeps_the_classes():
    values, classes = np.array([9.0, 8, 7, 6, 1, 0.5]), np.array(list("aaaabb"))
    assert sorted(sampling.top(values, 3).tolist()) == [0, 1, 2]
    assert sorted(sampling.top_within_class(values, classes, 3).tolist()) == [0, 1, 4]
    chosen = selection.in_classes(np.zeros(6, int), ["t"], np.array([3]), values, classes)
    assert sorted(chosen.rows.tolist()) == [0, 1, 4]


def test_over_all_ignores_tasks():
    chosen = selection.over_all(np.array([0, 0, 1, 1]), ["a", "b"], np.array([1.0, 2, 3, 4]), 2)
    assert chosen.rows.tolist() == [3, 2] and [line["taken"] for line in chosen.report] == [0, 2]


def test_choices_refuse_bad_input():
    with pytest.raises(UserError, match="record number 1 is NaN"):
        sampling.top(np.array([1, np.nan]), 1)
    with pytest.raises(UserError, match="3 of 2 records"):
        sampling.gumbel_top(np.zeros(2), 3, np.random.default_rng(0), 1.0)
    with pytest.raises(UserError, match="either `q` or `choose`"):
        selection.by_task(np.zeros(2, int), ["t"], np.array([1]), np.zeros(2), 0)


def records(count=6):
    turns = (Turn("human", "<image>\nwhat ?"), Turn("gpt", "dog"))
    return [Record(f"r{i}", f"coco/{i % 4}.png", turns, "vqav2" if i % 2 else "gqa") for i in range(count)]


def test_the_selected_pool_and_its_manifest(tmp_path):
    pool = records()
    tasks, names = labels.task_numbers(pool)
    assert names == ["gqa", "vqav2"] and tasks.tolist() == [0, 1] * 3
    chosen = selection.by_task(tasks, names, np.array([2, 5]), np.arange(6.0), 0, choose=sampling.top)
    manifest = selection.write(
        tmp_path / "s.json", pool, chosen, {"seed": 0, "budget": 7}, {"tokens": np.arange(6) * 10}
    )
    written = list(read_records(tmp_path / "s.json", Skips()))
    assert [r.id for r in written] == ["r4", "r2", "r1", "r3", "r5", "r5", "r3"] and written[0] == pool[4]
    assert manifest == read_json(tmp_path / "s.manifest.json")
    assert manifest["sums"] == {"tokens": 230.0}
    assert manifest["unique"] == 5 and manifest["records"] == 7 and manifest["images"] == 4
    assert manifest["sha256"] == sha256_file(tmp_path / "s.json")
    with pytest.raises(UserError, match="row 5 of a pool of 3 records"):
        selection.write(tmp_path / "t.json", pool[:3], chosen, {})


def test_answer_classes():
    one, long = records(1)[0], Record("l", None, (Turn("human", "a"), Turn("gpt", "a dog and a cat are there")), "x")
    two = Record("t", None, (*one.turns, Turn("human", "and ?"), Turn("gpt", "Yes")), "x")
    assert labels.answer_classes([one, two, long]).tolist() == ["dog", "dog | yes", "long"]


def test_a_record_without_dataset_is_named():
    pool = [*records(2), Record("lost", None, (Turn("human", "a"), Turn("gpt", "b")))]
    with pytest.raises(UserError, match="record lost has no `dataset`"):
        labels.task_numbers(pool)
