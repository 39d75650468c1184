"""Verdicts: the decision table, row by row (planted faults: test_planted_faults.py)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from mmlib import plots
from mmlib.evidence import Evidence
from mmlib.verdicts import VERDICTS, judge
from tests import claims_fixture as fixture

POSITIVE = ("reproduced", "consistent-at-reduced-scale")
CARDS = fixture.cards()
FIELDS = {"id", "study", "statement", "verdict", "metric", "effect", "low", "high", "margin", "seeds", "n_used",
          "n_asked", "profile", "stage", "lock", "reason", "treatment", "control", "unit", "effect_unit", "published",
          "criterion", "place", "version", "seeds_asked", "subject"}  # fmt: skip


def verdict(card, evidence, profile="laptop", **more):
    row = judge(card, evidence, profile=profile, **more)
    assert set(row) == FIELDS and row["verdict"] in VERDICTS and row["reason"]
    return row["verdict"]


@pytest.fixture
def evidence():
    return fixture.evidence()


def test_the_effect_is_the_scaled_difference_of_means(evidence):
    row = judge(CARDS["D1-loss"], evidence, profile="laptop")
    values = evidence["metrics"]["em"]["values"]
    by_hand = 100 * (np.mean(list(values["small"].values())) - np.mean(values["big"]["-"]))
    assert row["effect"] == pytest.approx(by_hand, abs=1e-6)


# ---- the decision table ---------------------------------------------------------------------------------------------


def around(effect, half, seeds=3, n=200):
    """Evidence whose effect and 95 % half-width (with seeds that all but agree) are as given."""
    spread = np.linspace(-1, 1, n)
    spread *= half * math.sqrt(n) / 1.96 / spread.std()
    made = Evidence(fixture.STUDY, fixture.STAGE)
    made.units("icl", [f"t/{number}" for number in range(n)], asked=n)
    made.metric("em", units="icl", higher_is_better=True, floor=None)
    made.add("em", arm="big", seed=None, values=[1.0] * n)
    for seed in range(seeds):
        made.add("em", arm="small", seed=seed, values=[float(1 + effect + value + 1e-9 * seed) for value in spread])
    return made.as_dict()


def ruled(kind, margin, direction=None, **changes):
    criterion = {"kind": kind, "margin": margin, **({"direction": direction} if direction else {})}
    return fixture.card(fixture.raw_card("T", "em", "small", criterion, scale=1, **changes))


@pytest.mark.parametrize(
    ("effect", "half", "expected"),
    [
        (0.0, 0.5, "consistent-at-reduced-scale"),
        (0.4, 0.5, "consistent-at-reduced-scale"),
        (2.0, 0.5, "contradicted"),
        (-2.0, 0.5, "contradicted"),
        (0.2, 1.5, "inconclusive"),
        (0.8, 0.5, "not-reproduced"),
        (0.8, 0.9, "inconclusive"),
        (1.2, 0.5, "not-reproduced"),
        (-1.2, 1.4, "inconclusive"),
        (0.9, 1.2, "inconclusive"),
        (-3.0, 1.4, "contradicted"),
        (-1.2, 0.9, "not-reproduced"),
        (0.0, 0.0, "inconclusive"),
        (0.5, 0.0, "inconclusive"),
    ],
)
def test_equivalence(effect, half, expected):
    assert verdict(ruled("equivalence", 1.0), around(effect, half)) == expected


@pytest.mark.parametrize(
    ("effect", "half", "expected"),
    [
        (2.0, 0.5, "consistent-at-reduced-scale"),
        (1.2, 0.5, "direction-only"),
        (0.6, 0.5, "direction-only"),
        (0.4, 0.5, "not-reproduced"),
        (0.6, 0.7, "inconclusive"),
        (-1.2, 1.4, "not-reproduced"),
        (-0.3, 0.5, "not-reproduced"),
        (0.5, 1.5, "inconclusive"),
        (-0.6, 0.5, "contradicted"),
        (-3.0, 0.5, "contradicted"),
        (5.0, 0.0, "inconclusive"),
    ],
)
def test_difference(effect, half, expected):
    assert verdict(ruled("difference", 1.0, "positive"), around(effect, half)) == expected
    assert verdict(ruled("difference", 1.0, "negative"), around(-effect, half)) == expected


def test_what_precedes_the_evidence(evidence):
    silent = fixture.card(
        fixture.raw_card("N", "em", "small", {"kind": "equivalence", "margin": 1}, not_attempted="65B")
    )
    row = judge(silent, None, profile="laptop", stale="edited")
    assert (row["verdict"], row["reason"], row["effect"]) == ("not-attempted", "65B", None)
    row = judge(CARDS["D1-loss"], None, profile="laptop", stale="x.py changed", lock="abc")
    assert (row["verdict"], row["reason"], row["effect"], row["lock"]) == ("stale", "x.py changed", None, "abc")
    assert verdict(CARDS["D1-loss"], None) == "inconclusive"


def test_only_the_paper_s_scale_reproduces(evidence):
    at_paper = fixture.card(
        fixture.raw_card(
            "P", "em", "small", {"kind": "difference", "direction": "negative", "margin": 10}, at_scale="paper"
        )
    )
    assert verdict(at_paper, evidence, "paper") == "reproduced"
    for profile in ("laptop", "gpu"):
        assert verdict(at_paper, evidence, profile) == "consistent-at-reduced-scale"
    assert verdict(CARDS["D1-loss"], evidence, "paper") == "consistent-at-reduced-scale"


def test_the_smoke_profile_earns_nothing(evidence):
    row = judge(CARDS["D1-loss"], evidence, profile="smoke")
    assert row["verdict"] == "inconclusive" and row["effect"] is not None


def test_properties_over_random_evidence():
    """Whatever the numbers: reduced scale never reproduces, a missing seed is never more than inconclusive."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        made = around(rng.normal(0, 2), abs(rng.normal(0, 1)), n=20)
        kind = ("equivalence", "difference")[rng.integers(2)]
        card = ruled(
            kind, 1.0, "positive" if kind == "difference" else None, at_scale=("reduced", "paper")[rng.integers(2)]
        )
        row = judge(card, made, profile="laptop")
        assert row["verdict"] != "reproduced"
        del made["metrics"]["em"]["values"]["small"][str(rng.integers(3))]
        assert verdict(card, made, ("laptop", "paper")[rng.integers(2)]) == "inconclusive"


def test_seeds_pair_by_name(evidence):
    """Two seeded arms meet in their common seeds; unequal sets are a missing shard."""
    card = fixture.card(
        fixture.raw_card("S", "em", "small", {"kind": "difference", "direction": "negative", "margin": 10},
                         control={"metric": "em", "arm": "twin"})
    )  # fmt: skip
    assert verdict(card, evidence) in POSITIVE
    twin = evidence["metrics"]["em"]["values"]["twin"]
    twin["9"] = twin.pop("1")
    row = judge(card, evidence, profile="laptop")
    assert row["verdict"] == "inconclusive" and row["reason"].startswith("2 of 3 seeds")
    evidence["metrics"]["em"]["values"]["twin"] = {"7": twin["0"], "8": twin["0"], "9": twin["0"]}
    row = judge(card, evidence, profile="laptop")
    assert (row["verdict"], row["seeds"], row["effect"]) == ("inconclusive", 0, None)


def test_an_arm_with_and_without_seeds_is_refused_also_if_one_seed_is_enough(evidence):
    card = dataclasses.replace(CARDS["D1-loss"], seeds=1)
    assert verdict(card, evidence) in POSITIVE
    arm = evidence["metrics"]["em"]["values"]["small"]
    arm["-"] = arm["0"]
    assert "both with and without seeds" in judge(card, evidence, profile="laptop")["reason"]


def test_a_repeated_run_is_no_seed_but_arms_at_the_floor_may_agree(evidence):
    em, nll = evidence["metrics"]["em"]["values"]["small"], evidence["metrics"]["nll"]["values"]["small"]
    em["0"] = em["1"] = em["2"] = [0] * len(em["0"])
    assert verdict(CARDS["D1-loss"], evidence) in POSITIVE, "three runs at the floor, told apart by their nll"
    nll["1"] = nll["2"] = nll["0"]
    for name in ("D1-loss", "D3-nll"):
        row = judge(CARDS[name], evidence, profile="laptop")
        assert row["verdict"] == "inconclusive" and row["reason"].startswith("only 1 of 3 seeds differ")


def test_tasks_are_strata(evidence):
    """Which tasks were chosen is the design: a task that differs from the others does not widen the interval."""
    card = ruled("difference", 0.1, "negative")
    alike = around(-1.0, 0.1)
    before = judge(card, alike, profile="laptop")
    far, near = [f"far/{n}" for n in range(100)], [f"near/{n}" for n in range(100)]
    alike["units"]["icl"] = far + near
    for values in alike["metrics"]["em"]["values"]["small"].values():
        values[:] = [value - 5 for value in values[:100]] + [value + 5 for value in values[100:]]
    after = judge(card, alike, profile="laptop")
    assert after["effect"] == before["effect"] and after["verdict"] in POSITIVE
    assert after["high"] - after["low"] <= before["high"] - before["low"]


def test_two_metrics_of_one_arm_are_a_contrast_and_unlike_units_are_not(evidence):
    em = evidence["metrics"]["em"]
    evidence["metrics"]["em0"] = {**em, "values": {arm: {s: [0.0] * len(v) for s, v in seeds.items()}
                                                   for arm, seeds in em["values"].items()}}  # fmt: skip
    gain = fixture.raw_card("G", "em", "small", {"kind": "difference", "direction": "positive", "margin": 3},
                            control={"metric": "em0", "arm": "small"})  # fmt: skip
    assert verdict(fixture.card(gain), evidence) in POSITIVE
    evidence["metrics"]["em0"]["higher_is_better"] = False
    assert "disagree" in judge(fixture.card(gain), evidence, profile="laptop")["reason"]
    gain = fixture.sealed({**gain, "control": {"metric": "nll", "arm": "small"}})
    assert "on text units" in judge(fixture.card(gain), evidence, profile="laptop")["reason"]


def test_a_requirement_on_an_arm_that_was_not_measured_is_not_met(evidence):
    raw = fixture.raw_card("R", "em", "small", {"kind": "equivalence", "margin": 3},
                           requires={"metric": "em", "arm": "huge", "at_least": 0.5})  # fmt: skip
    row = judge(fixture.card(raw), evidence, profile="laptop")
    assert row["verdict"] == "inconclusive" and "em was not measured on huge" in row["reason"]


def test_a_single_unit_stratum_is_refused_with_its_name(evidence):
    evidence["units"]["icl"][0] = "lonely/0"
    assert "stratum lonely" in judge(CARDS["D1-loss"], evidence, profile="laptop")["reason"]


def test_every_verdict_has_a_colour():
    assert set(VERDICTS) == set(plots.VERDICT_COLOURS)
