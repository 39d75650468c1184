"""Ratios as one value per picture, arms, and faults planted in the rows that must move the evidence."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

from mmlib.jade import arms, precision, report, study
from mmlib.jade.truth import PRESUPPOSITION, RIGHT, WRONG

KINDS = ("what", "how", "yes")


def row(draw, kind):
    verdict = draw.choices((RIGHT, WRONG, PRESUPPOSITION), (5, 3, 2))[0]
    agrees = draw.random() < (0.9 if verdict == RIGHT else 0.4)
    said = ["a" if agrees else "b", draw.random()]
    return {"question": f"q{draw.random()}", "answer": "a", "type": kind, "verdict": verdict, "prob": draw.random(),
            "filter": {name: said for name in (*study.FILTERS, "may refuse")},
            "exists": "no" if verdict == PRESUPPOSITION else "yes"}  # fmt: skip


@pytest.fixture
def pictures():
    draw = random.Random(0)
    return [[row(draw, draw.choice(KINDS)) for _ in range(draw.randint(0, 9))] for _ in range(60)]


def flat(pictures):
    return [row for rows in pictures for row in rows]


def at_raw_mix(kept, raw):
    """Precision of each type by its share of the raw rows, by hand."""
    parts = {kind: [row for row in kept if row["type"] == kind] for kind in KINDS}
    mix = {kind: sum(row["type"] == kind for row in raw) for kind in KINDS if parts[kind]}
    return sum(n * precision.precision(parts[kind]) for kind, n in mix.items()) / sum(mix.values())


def test_means_are_the_ratios(pictures):
    kept = arms.keep("consistency", pictures, 0)
    assert np.mean(arms.METRICS["precision"][1](kept, pictures)) == pytest.approx(precision.precision(flat(kept)))
    assert np.mean(arms.standardised(kept, pictures)) == pytest.approx(at_raw_mix(flat(kept), flat(pictures)))
    some = [[row for row in rows if row["type"] != "how"] for rows in kept]  # a type of which nothing is left
    assert np.mean(arms.standardised(some, pictures)) == pytest.approx(at_raw_mix(flat(some), flat(pictures)))
    with pytest.raises(ValueError, match="share of nothing"):
        arms.ratio([0.0], [0.0])


def test_their_spread_is_that_of_the_ratio():
    """Against the bootstrap of the ratio itself, pictures with many and few rows."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(1, 20, 200).astype(float)
    hits = draw.binomial(sizes.astype(int), draw.beta(2, 2, 200)).astype(float)
    picks = draw.integers(0, 200, (3000, 200))
    ratio = hits[picks].sum(1) / sizes[picks].sum(1)
    linear = np.array(arms.ratio(list(hits), list(sizes)))[picks].mean(1)
    assert linear.std() == pytest.approx(ratio.std(), rel=0.05)


def test_arms_of_equal_size_are_equal_and_the_oracle_is_right(pictures):
    sizes = {arm: len(flat(arms.keep(arm, pictures, 3))) for arm in arms.ARMS}
    assert sizes["probability"] == sizes["random"] == sizes["consistency"] < sizes["none"]
    assert sizes["existence"] < sizes["consistency"]
    sure = arms.keep("consistency, as few as existence", pictures, 3)
    agreed, few = flat(arms.keep("consistency", pictures, 3)), flat(sure)
    assert len(few) == sizes["existence"] and all(row in agreed for row in few)
    dropped = [row["filter"]["independent"][1] for row in agreed if row not in few]
    assert max(dropped) <= min(row["filter"]["independent"][1] for row in few)
    assert all(row["verdict"] == RIGHT for row in flat(arms.keep("oracle", pictures, 3)))
    assert arms.keep("random", pictures, 3) != arms.keep("random", pictures, 4)


def test_a_filter_that_only_changes_the_mix_gains_nothing_when_standardised():
    def rows(kind, right, wrong):
        return [{"type": kind, "verdict": verdict} for verdict in [RIGHT] * right + [WRONG] * wrong]

    raw, mix = [rows("what", 20, 80) + rows("how", 80, 20)], [rows("what", 2, 8) + rows("how", 80, 20)]
    assert precision.precision(flat(mix)) > precision.precision(flat(raw)) + 0.2
    assert np.mean(arms.standardised(mix, raw)) == pytest.approx(precision.precision(flat(raw)))


def exam(pictures, right):
    return {name: [[right, 1] for _ in pictures] for name in study.SETS}


def evidence(pictures):
    captions = [[{"right": True, "exists": "yes"}, {"right": False, "exists": "no"}] for _ in pictures]
    sets = {name: {"rows": pictures, "captions": captions} for name in study.SETS}
    exams = {name: exam(pictures, int(name != "own weights")) for name in study.FILTERS}
    return arms.as_evidence([{"seed": 0, "sets": sets, "exam": exams}], {"pictures": len(pictures)})


def value(made, metric, arm):
    return np.mean(made["metrics"][metric]["values"][arm]["0"])


def test_evidence_and_planted_faults(pictures):
    made = evidence(pictures)
    gain = value(made, "standardised", "consistency") - value(made, "standardised", "none")
    assert gain > 0.1 and value(made, "caption_right", "existence") == 1
    assert value(made, "errors_kept", "none") == pytest.approx(1) and value(made, "precision", "oracle") == 1
    assert value(made, "exam", "own weights") == 0.5 and value(made, "exam_behind", "own weights") == 0.5
    assert value(made, "exam_behind", "same pictures") == 0
    shuffled = copy.deepcopy(pictures)  # the filter's answers given to other questions: nothing is gained
    answers = [row["filter"] for row in flat(shuffled)]
    random.Random(1).shuffle(answers)
    for one, given in zip(flat(shuffled), answers, strict=True):
        one["filter"] = given
    spoiled = evidence(shuffled)
    assert abs(value(spoiled, "standardised", "consistency") - value(spoiled, "standardised", "none")) < gain / 2
    nothing = copy.deepcopy(pictures)
    for one in flat(nothing):
        one["filter"] = {name: ["c", 0.5] for name in one["filter"]}
    assert "consistency" not in evidence(nothing)["metrics"]["precision"]["values"]


def test_the_thing_that_a_question_is_about():
    assert study.noun_of("how big is the dog ?", "large") == "dog"
    assert study.noun_of("what is in the north ?", "cat") == "cat"
    assert study.noun_of("is there a dog ?", "no") == "" and study.noun_of("is there a dog ?", "yes") == "dog"
    assert study.noun_of("", "large owl on red") == "owl"


def test_arms_are_shown_seed_by_seed():
    values = {"random": {"0": [0.2, 0.4], "1": [0.0, 0.1]}, "none": {"0": [0.5, 0.5], "1": [1.0, 0.0]}}
    table = report.by_seed({"metrics": {"standardised": {"values": values}}})
    assert list(table.index) == [arm for arm in arms.ARMS if arm in values] and list(table.columns) == ["0", "1"]
    assert table.loc["random"].tolist() == pytest.approx([30, 5])
    assert table.loc["none"].tolist() == pytest.approx([50, 50])
