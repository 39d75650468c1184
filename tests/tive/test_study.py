"""Arms, evidence and tables: budgets, signs, planted effects found and planted nothing not found."""

from __future__ import annotations

import math

import numpy as np
import pandas
import pytest

from mmlib.errors import UserError
from mmlib.formats.llava import Record, Turn
from mmlib.tive import arms, comparisons, judgement, outcomes, ranks, report

SIZES = {"a": 200, "b": 40, "c": 90, "left": 30}
RECORDS = [
    Record(f"{task}-{i}", None, (Turn("human", "q ?"), Turn("gpt", str(i % 3))), task)
    for task, size in SIZES.items()
    for i in range(size)
]  # fmt: skip


def columns(seed=0, **more):
    draw = np.random.default_rng(seed)
    n = len(RECORDS)
    difficulty = np.array([{"a": 1.0, "b": 8.0, "c": 2.0, "left": 50.0}[r.dataset] for r in RECORDS])
    made = {"norm": difficulty * draw.uniform(0.9, 1.1, n), "loss": draw.uniform(0, 2, n),
            "el2n": draw.uniform(0, 1, n), "answers": draw.integers(1, 20, n).astype(float),
            "tokens": draw.integers(20, 90, n).astype(float),
            "influence": 0.05 * draw.standard_normal(n), "influence_all": draw.standard_normal(n),
            "less": draw.standard_normal(n)}  # fmt: skip
    return {**{name: column.tolist() for name, column in made.items()}, **more}


PART = arms.candidates(RECORDS, columns(), ["left"])


def taken(name, seed=0, budget=60):
    return arms.select(arms.ARMS[name], PART, budget, seed, 30.0, 1.0)


@pytest.mark.parametrize("name", arms.ARMS)
def test_every_arm_takes_the_budget_from_what_may_be_chosen(name):
    made = taken(name)
    assert len(made.rows) == 60 and "left" not in {RECORDS[row].dataset for row in made.rows}
    assert made.rows.tolist() == taken(name).rows.tolist()
    drawn = arms.ARMS[name].weights and math.isfinite(arms.ARMS[name].sign) and not arms.ARMS[name].classes
    assert (made.rows.tolist() != taken(name, 1).rows.tolist()) == bool(drawn)


def test_allocations_are_what_they_are_called():
    def counts(name):
        return [line["taken"] for line in taken(name).report]

    assert counts("uniform") == [20, 20, 20] and counts("random") == [37, 7, 16]
    for name in ("difficulty", "tive", "sign", "top", "grand-in-task"):
        assert counts(name) == counts("difficulty") and counts(name)[1] > 40  # eight elevenths, of 40 records
    assert counts("capped")[1] == 40 and counts("squared")[1] > counts("difficulty")[1]
    assert {RECORDS[row].dataset for row in taken("grand").rows} == {"b", "c"}  # the largest norms that may be taken


def test_q_prefers_high_values_and_minus_q_low_ones():
    lifts = {name: taken(name).report[0]["lift"] for name in ("difficulty", "tive", "sign", "top")}
    assert lifts["sign"] < -0.3 < lifts["difficulty"] < 0.6 < lifts["tive"] < lifts["top"]
    sweep = pandas.DataFrame(arms.q_sweep(PART, arms.quotas(PART, "source", 60), [0.001, 100.0], 0))
    assert sweep.groupby("q")["no_effect"].all().tolist() == [True, False]
    flat = arms.candidates(RECORDS, columns(influence=[0.5] * len(RECORDS)), ["left"])
    assert arms.select(arms.ARMS["tive"], flat, 60, 0, 30.0, 1.0).rows.tolist() == taken("difficulty").rows.tolist()


def test_candidates_refuse_what_does_not_fit():
    with pytest.raises(UserError, match="no record of task none"):
        arms.candidates(RECORDS, columns(), ["none"])
    with pytest.raises(UserError, match="2 values `norm` of 360 records"):
        arms.candidates(RECORDS, columns(norm=[1.0, 2.0]), [])
    with pytest.raises(UserError, match="unknown weights of tasks `size`"):
        arms.task_weights(PART, "size")


def test_ranks_agree_with_themselves_and_not_with_shuffled_values():
    noise = 0.02 * np.random.default_rng(5).standard_normal(len(RECORDS))
    near = arms.candidates(RECORDS, columns(influence=(np.array(columns()["influence"]) + noise).tolist()), ["left"])
    other = arms.candidates(RECORDS, columns(7), ["left"])
    made = ranks.as_evidence([PART, near, other])["metrics"]["rank_influence"]["values"]
    assert min(made["two seeds"]["0"]) > 0.8 and max(map(abs, made["two seeds"]["1"])) < 0.5
    assert max(map(abs, made["shuffled"]["0"])) < 0.5
    assert ranks.rank_correlation(np.ones(5), np.arange(5)) == 0
    table = judgement.agreement(PART, {"itself": PART, "another": other})
    assert table.loc["itself"].tolist() == [1, 1, 1] and table.loc["another", "influence"] < 0.3


def test_length_is_told_from_difficulty():
    answers = np.array(columns()["answers"])
    brief = arms.candidates(RECORDS, columns(norm=(1 / answers).tolist()), ["left"])
    found = judgement.lengths(brief)
    assert found["norm and length, all records"] < -0.99 and found["norm and length, mean within tasks"] < -0.99
    assert abs(judgement.lengths(PART)["norm and length, mean within tasks"]) < 0.2
    table = judgement.strata(PART)
    assert (table.loc["b"] > 3 * table.loc["a"]).all()  # in every stratum


def test_copies_and_wrong_ones_are_counted():
    marked = np.zeros(10, bool)
    marked[[0, 1]] = True
    draws = {"x": [np.array([0, 1, 2, 3]), np.array([4, 5])], "none": [np.array([9])]}
    found = judgement.taken(draws, marked, np.arange(9))
    assert found["taken"] == {"x": 3.0, "none": 0.0} and found["ratio"]["x"] == pytest.approx((2 / 6) / (2 / 9))
    assert math.isnan(found["ratio"]["none"])
    assert judgement.both_copies(np.array([1, 4, 5, 9]), {9: 1, 5: 2}) == 1


RECIPE = {"steps": 40, "rehearsed": 10, "batch": 4, "items": 3}
SETTINGS = {"seeds": [0, 1, 2], "few_seeds": [0, 1], "main_arms": ["random", "tive"], "other_arms": ["grand"],
            "small_arms": ["random"], "epoch_arms": ["tive"]}  # fmt: skip
SELECTIONS = [{"arm": arm, "budget": budget, "seed": seed, "rows": [1, 2]}
              for arm in ("random", "tive", "grand") for budget in (0.2, 0.1) for seed in range(3)]  # fmt: skip


def results(effects, seconds=10.0):
    """Runs whose scores differ by planted effects on each of two named benchmarks and a third one."""
    made, draw = [], np.random.default_rng(0)
    for shard in outcomes.shards(SELECTIONS, [1, 2, 3], [0.2, 0.1], SETTINGS, RECIPE):
        level = 0.5 + effects.get(shard["label"], 0.0)
        scores = {name: (level + 0.01 * draw.standard_normal(3)).tolist() for name in ("choice", "knowledge", "color")}
        run = {
            "seed": shard["seed"],
            "scores": scores,
            "seconds": seconds,
            "seen": {"unique": 2, "tokens": 9, "images": 1},
        }
        made.append({"label": shard["label"], "arm": shard["arm"], **run})
    return made


def test_shards_are_the_arms_that_the_settings_name():
    made = outcomes.shards(SELECTIONS, [1, 2, 3], [0.2, 0.1], SETTINGS, RECIPE)
    names = [shard["name"] for shard in made]
    assert len(names) == len(set(names)) == 3 + 6 + 2 + 2 + 2
    assert {s["label"] for s in made} == {
        "full",
        "random 20%",
        "tive 20%",
        "grand 20%",
        "random 10%",
        "tive 20% one epoch",
    }
    short = next(s for s in made if s["label"].endswith(outcomes.ONE_EPOCH))["recipe"]
    assert (short["steps"], short["rehearsed"]) == (8, 2)  # a fifth of 30 and of 10
    with pytest.raises(UserError, match=r"no selection of less 20% with seed 0"):
        outcomes.shards(SELECTIONS, [1], [0.2, 0.1], {**SETTINGS, "other_arms": ["less"]}, RECIPE)


def test_evidence_holds_every_item_and_what_the_cards_name():
    made = results({"tive 20%": 0.1})
    seconds = [{"warm-up": 1.0, "gradients": 2.0}] * 2
    spent = outcomes.costs(made, seconds, "tive")
    assert spent == {"full": {0: 10.0, 1: 10.0, 2: 10.0}, "tive": {0: 13.0, 1: 13.0}}
    evidence = outcomes.as_evidence(made, RECIPE, {"choice": 0.25, "knowledge": 0.25, "color": 0.1}, spent)
    values = evidence["metrics"]["score"]["values"]
    assert np.mean(values["tive 20%"]["0"]) - np.mean(values["random 20%"]["0"]) == pytest.approx(0.1, abs=0.02)
    assert np.allclose(values["95% of full"]["1"], 0.95 * np.array(values["full"]["1"]))
    assert evidence["metrics"]["cost"]["values"]["tive"] == {"0": [1.3], "1": [1.3]}
    assert evidence["metrics"]["score"]["floor"] == 0.2 and len(evidence["units"]["item"]) == 9
    assert evidence["metrics"]["score_choice"]["values"]["full"]["0"] == made[0]["scores"]["choice"]


def test_holm_is_the_textbook_s():
    p = pandas.Series({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert comparisons.holm(p).to_dict() == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert comparisons.holm(pandas.Series(dtype=float)).empty


def test_a_planted_effect_is_found_and_decomposed():
    chance = {"choice": 0.25, "knowledge": 0.25, "color": 0.1}
    runs = comparisons.frame(results({"tive 20%": 0.1, "full": 0.02}), chance)
    assert runs[runs["label"] == "random 20%"]["above"].mean() == pytest.approx(30, abs=1.5)
    found = comparisons.against(runs, "random 20%")
    assert found.loc["tive 20%", "effect"] == pytest.approx(10, abs=1.5) and found.loc["tive 20%", "holm"] < 0.05
    assert found.loc["grand 20%", "seeds"] == 2 and found.loc["random 10%", "holm"] > 0.05
    table = report.arms_table(runs, 0.2)
    assert table.index[0] == "tive 20%" and set(table.index) == {"full", "random 20%", "tive 20%", "grand 20%"}
    limits = report.with_limits(table.drop(index="random 20%"))
    assert limits.loc["tive 20%", "low"] > 5 and limits.loc["full", "high"] < 5
    wide = report.by_benchmark(runs, list(chance), "full")
    assert wide.loc["tive 20%", "median"] == pytest.approx(8, abs=1.5) and "full" not in wide.index
    cells = {"random": 0, "difficulty": 3, "instance": 1, "tive": 5}
    square = pandas.DataFrame([{"label": f"{arm} 20%", "seed": seed, "above": value + 0.01 * seed * value}
                               for arm, value in cells.items() for seed in range(3)])  # fmt: skip
    made = report.decomposition(square, 0.2)["effect"]
    assert made.tolist() == pytest.approx([3.5 * 1.01, 1.5 * 1.01, 1.01])


def test_break_even_counts_what_is_paid_once():
    steps = [{"warm-up": 4.0, "gradients": 10.0}]
    cost = report.break_even({"full": {"0": 10.0, "1": 10.0}, "tive": {"0": 16.0, "1": 16.0}}, steps)
    assert cost["training on the choice"] == 2 and cost["targets"] == 2  # 14 once, 8 saved by each
    assert report.break_even({"full": {"0": 1.0}, "tive": {"0": 16.0}}, steps)["targets"] == math.inf


def test_tables_of_values():
    table = report.tasks([PART], 60)
    assert table.index[0] == "b" and table.loc["b", "takes, difficulty"] > 40 and table["takes, uniform"].sum() == 60
    high, low = report.extremes(PART, "c", 3)
    influence = np.array(columns()["influence"])
    assert min(influence[high]) > max(influence[low]) and {RECORDS[i].dataset for i in high + low} == {"c"}
    same = np.array([row for row, r in enumerate(RECORDS) if r.dataset == "a" and r.turns[1].text == "0"])
    assert report.answer_entropy(PART, same, "a") == 0
    assert report.answer_entropy(PART, PART.places[PART.tasks == 0], "a") == pytest.approx(math.log2(3), abs=0.01)
