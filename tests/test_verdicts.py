"""Verdicts: the decision table row by row, and planted faults, each of which must cost a claim its verdict."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest

from mmlib import claims, plots
from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.verdicts import VERDICTS, judge
from tests import claims_fixture as fixture

POSITIVE = ("reproduced", "consistent-at-reduced-scale")
CARDS = fixture.cards()
FIELDS = {"id", "study", "statement", "verdict", "metric", "effect", "low", "high", "margin", "seeds", "n_used",
          "n_asked", "profile", "stage", "lock", "reason", "treatment", "control", "unit", "effect_unit", "published",
          "criterion", "place", "version", "seeds_asked"}  # fmt: skip


def verdict(card, evidence, profile="laptop", **more):
    row = judge(card, evidence, profile=profile, **more)
    assert set(row) == FIELDS and row["verdict"] in VERDICTS and row["reason"]
    return row["verdict"]


@pytest.fixture
def evidence():
    return fixture.evidence()


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_without_a_fault_every_claim_holds(card, evidence):
    """The test of the tests below: what they break was whole."""
    row = judge(card, evidence, profile="laptop", lock="abc")
    assert row["verdict"] == "consistent-at-reduced-scale", row["reason"]
    assert row["n_used"] == row["n_asked"] and row["seeds"] == 3 and row["lock"] == "abc"
    assert row["low"] <= row["effect"] <= row["high"]


def test_the_effect_is_the_scaled_difference_of_means(evidence):
    row = judge(CARDS["D1-loss"], evidence, profile="laptop")
    values = evidence["metrics"]["em"]["values"]
    by_hand = 100 * (np.mean(list(values["small"].values())) - np.mean(values["big"]["-"]))
    assert row["effect"] == pytest.approx(by_hand, abs=1e-6)


# ---- planted faults -------------------------------------------------------------------------------------------------


def metric_of(card, evidence):
    return evidence["metrics"][card.treatment.metric]


def swapped_arms(card, evidence):
    values = metric_of(card, evidence)["values"]
    treatment, control = card.treatment.arm, card.control.arm
    values[treatment], values[control] = values[control], values[treatment]


def dropped_seed(card, evidence):
    del metric_of(card, evidence)["values"][card.treatment.arm]["1"]


def dropped_arm(card, evidence):
    del metric_of(card, evidence)["values"][card.treatment.arm]


def dropped_metric(card, evidence):
    del evidence["metrics"][card.treatment.metric]


def dropped_units(card, evidence):
    kind = metric_of(card, evidence)["units"]
    evidence["units"][kind] = evidence["units"][kind][:-2]
    for metric in evidence["metrics"].values():
        if metric["units"] == kind:
            metric["values"] = {arm: {s: v[:-2] for s, v in seeds.items()} for arm, seeds in metric["values"].items()}


def dropped_values(card, evidence):
    metric_of(card, evidence)["values"][card.treatment.arm]["0"].pop()


def flipped_flag(card, evidence):
    metric_of(card, evidence)["higher_is_better"] = not card.higher_is_better


def flipped_values(card, evidence):
    metric = metric_of(card, evidence)
    for seeds in metric["values"].values():
        for seed, values in seeds.items():
            seeds[seed] = [-value for value in values]


def duplicated_items(card, evidence):
    """The last two items replaced by copies of the first: the count is right, the news is not."""
    units = evidence["units"][metric_of(card, evidence)["units"]]
    units[-2:] = units[:2]


def repeated_items(card, evidence):
    """The whole set once more under new names: twice the n, a shorter interval."""
    kind = metric_of(card, evidence)["units"]
    evidence["units"][kind] = [*evidence["units"][kind], *(f"{unit}-again" for unit in evidence["units"][kind])]
    for metric in evidence["metrics"].values():
        if metric["units"] == kind:
            metric["values"] = {arm: {s: v * 2 for s, v in seeds.items()} for arm, seeds in metric["values"].items()}


def not_a_number(card, evidence):
    metric_of(card, evidence)["values"][card.treatment.arm]["2"][5] = math.nan


def a_missing_number(card, evidence):
    metric_of(card, evidence)["values"][card.control.arm]["-"][5] = None


def seeds_and_none(card, evidence):
    arms = metric_of(card, evidence)["values"]
    arms[card.treatment.arm]["-"] = arms[card.treatment.arm]["0"]


def another_stage(card, evidence):
    evidence["stage"] = "demo-other"


def another_study(card, evidence):
    evidence["study"] = "other"


def another_schema(card, evidence):
    evidence["schema"] = 2


def no_count_asked(card, evidence):
    evidence["n_asked"] = {}


def no_units(card, evidence):
    evidence["units"] = {}


FAULTS = [swapped_arms, dropped_seed, dropped_arm, dropped_metric, dropped_units, dropped_values, flipped_flag,
          flipped_values, duplicated_items, repeated_items, not_a_number, a_missing_number, seeds_and_none,
          another_stage, another_study, another_schema, no_count_asked, no_units]  # fmt: skip


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_costs_the_verdict(card, fault, evidence):
    if fault is swapped_arms and card.criterion.kind == "equivalence":
        pytest.skip("`a as good as b` is symmetric; the evidence file's MD5 catches the swap (test_ledger)")
    fault(card, evidence)
    assert verdict(card, evidence) not in POSITIVE


def test_shuffled_labels_put_every_arm_at_the_floor():
    broken = fixture.evidence(shuffled_labels=True)
    for name in ("D1-loss", "D2-same"):
        row = judge(CARDS[name], broken, profile="laptop")
        assert row["verdict"] == "inconclusive" and "`em` of `big` at least 0.5" in row["reason"]
    tempting = dataclasses.replace(CARDS["D2-same"], requires=None)
    assert verdict(tempting, broken) in POSITIVE, "two broken arms look equivalent: this is why cards need `requires`"


def test_swapped_arms_contradict_a_difference_even_if_nothing_is_required(evidence):
    card = dataclasses.replace(CARDS["D1-loss"], requires=None)
    swapped_arms(card, evidence)
    assert verdict(card, evidence) == "contradicted"


def test_negated_values_contradict_a_difference_even_if_nothing_is_required(evidence):
    card = dataclasses.replace(CARDS["D1-loss"], requires=None)
    flipped_values(card, evidence)
    assert verdict(card, evidence) == "contradicted"


# ---- the cards of this repository -----------------------------------------------------------------------------------


def holding(card):
    """Evidence on which a card holds: as many units and seeds as asked, levels that meet criterion and requirement."""
    rng, sign = np.random.default_rng(3), {"negative": -1, "positive": 1, None: 0}[card.criterion.direction]
    levels = {card.control: 0.5 if card.higher_is_better else 3.0}
    if card.requires:
        low, high = card.requires.at_least, card.requires.at_most
        level = low + 0.2 if high is None else high - 0.5 if low is None else (low + high) / 2
        levels[claims.Arm(card.requires.metric, card.requires.arm)] = level
    levels[card.treatment] = levels[card.control] + sign * 2 * card.criterion.margin / card.scale
    made = Evidence(card.study, card.stage)
    made.units("u", [f"task/{number}" for number in range(300)], asked=300)
    for metric in sorted({side.metric for side in levels}):
        made.metric(metric, units="u", higher_is_better=card.higher_is_better, floor=None)
    for side in sorted(levels, key=lambda side: (side.metric, side.arm)):
        noise = 0.2 * card.criterion.margin / card.scale
        seeds = (
            [None] if side == card.control and card.seeds > 1 and side.arm != card.treatment.arm else range(card.seeds)
        )
        for seed in seeds:
            values = levels[side] + noise * rng.normal(size=300)
            made.add(side.metric, arm=side.arm, seed=seed, values=[float(v) for v in values])
    return made.as_dict()


def repository_cards():
    try:
        return [card for study in claims.load_all(fixture.ROOT) for card in study.claims if card.not_attempted is None]
    except UserError:  # test_claims says what is wrong with them
        return []


@pytest.mark.parametrize("card", repository_cards(), ids=lambda card: card.id)
def test_the_repository_s_cards_can_hold_and_notice_a_flipped_sign(card):
    whole = holding(card)
    assert verdict(card, whole) in POSITIVE, judge(card, whole, profile="laptop")["reason"]
    for fault in (flipped_flag, flipped_values, dropped_units, duplicated_items):
        broken = copy.deepcopy(whole)
        fault(card, broken)
        assert verdict(card, broken) not in POSITIVE, fault.__name__


# ---- the decision table ---------------------------------------------------------------------------------------------


def around(effect, half, seeds=3, n=200):
    """Evidence whose effect and 95 % half-width (with identical seeds) are as given."""
    spread = np.linspace(-1, 1, n)
    spread *= half * math.sqrt(n) / 1.96 / spread.std()
    made = Evidence(fixture.STUDY, fixture.STAGE)
    made.units("icl", [f"t/{number}" for number in range(n)], asked=n)
    made.metric("em", units="icl", higher_is_better=True, floor=None)
    made.add("em", arm="big", seed=None, values=[1.0] * n)
    for seed in range(seeds):
        made.add("em", arm="small", seed=seed, values=[float(1 + effect + value) for value in spread])
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
        (1.2, 0.5, "not-reproduced"),
        (-1.2, 1.4, "not-reproduced"),
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
