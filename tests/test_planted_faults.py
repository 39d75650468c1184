"""Planted faults: each must cost a claim its verdict, in the demo study and in every card of this repository."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest

from mmlib import claims
from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.verdicts import judge
from tests import claims_fixture as fixture

CARDS = fixture.cards()
POSITIVE = ("reproduced", "consistent-at-reduced-scale")


@pytest.fixture
def evidence():
    return fixture.evidence()


def verdict(card, evidence):
    return judge(card, evidence, profile="laptop")["verdict"]


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_without_a_fault_every_claim_holds(card, evidence):
    """The test of the tests below: what they break was whole."""
    row = judge(card, evidence, profile="laptop", lock="abc")
    assert row["verdict"] == "consistent-at-reduced-scale", row["reason"]
    assert row["n_used"] == row["n_asked"] and row["seeds"] == 3 and row["lock"] == "abc"
    assert row["low"] <= row["effect"] <= row["high"]


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


def copied_seed(card, evidence):
    """The first seed under every seed's name, in all arms and metrics."""
    for metric in evidence["metrics"].values():
        for seeds in metric["values"].values():
            seeds.update({seed: next(iter(seeds.values())) for seed in seeds})


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
          copied_seed, another_stage, another_study, another_schema, no_count_asked, no_units]  # fmt: skip


# `a as good as b` is symmetric: swapping its arms is no fault here (the evidence file's MD5 catches it, test_ledger).
PLANTED = [
    pytest.param(card, fault, id=f"{fault.__name__}-{name}")
    for name, card in CARDS.items()
    for fault in FAULTS
    if not (fault is swapped_arms and card.criterion.kind == "equivalence")
]


@pytest.mark.parametrize(("card", "fault"), PLANTED)
def test_a_planted_fault_costs_the_verdict(card, fault, evidence):
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
        required = claims.Arm(card.requires.metric, card.requires.arm)
        levels[required] = level
        if required == card.treatment and not sign:  # alike, and where the requirement wants them
            levels[card.control] = level
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
    faults = [flipped_flag, flipped_values, dropped_units, duplicated_items]
    faults += [copied_seed] if card.seeds > 1 else []  # printed tables and greedy decoding have one seed: no copy there
    for fault in faults:
        broken = copy.deepcopy(whole)
        fault(card, broken)
        assert verdict(card, broken) not in POSITIVE, fault.__name__
