"""A claim card and its evidence -> effect, interval and verdict.

The first row that applies decides; m is the criterion's margin, [low, high] the 95 % interval of the effect
(treatment minus control), near and far its ends in the claimed direction, half its half-width.

| when                                                                                      | verdict        |
|-------------------------------------------------------------------------------------------|----------------|
| the card says why it was not attempted                                                    | not-attempted  |
| code, data, parameters or the evidence file moved since the recorded run                  | stale          |
| the evidence cannot be paired: another study or stage, an arm or metric missing, a unit   | inconclusive   |
|   twice, not one finite number per unit, metric signs unlike the card's or each other's   |                |
| fewer seeds than asked, or seeds that repeat one run; fewer or more units than asked      | inconclusive   |
| the profile is `smoke`                                                                    | inconclusive   |
| the arm that `requires` names misses its bounds (a baseline at the floor)                 | inconclusive   |
| the interval has no width                                                                 | inconclusive   |
| equivalence: the interval lies within ±m                                                  | holds          |
|   it lies wholly beyond +m or beyond -m                                                   | contradicted   |
|   half > m (it could not have fitted, wherever it lies), or it holds 0                    | inconclusive   |
|   else (there is a difference, and it may be larger than m)                               | not-reproduced |
| difference: near > m                                                                      | holds          |
|   near > 0                                                                                | direction-only |
|   far < 0                                                                                 | contradicted   |
|   far <= m: an effect of the claimed size is excluded                                     | not-reproduced |
|   else: both no effect and one of the claimed size remain possible                        | inconclusive   |

`holds` is written `reproduced` only when the card is at the paper's scale and so is the profile, and
`consistent-at-reduced-scale` otherwise. Decisions use the rounded numbers that the row shows.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmlib.claims import Arm, Card, Criterion
from mmlib.evidence import DETERMINISTIC, SCHEMA
from mmlib.stats import Interval, equivalent, paired_bootstrap

VERDICTS = {
    "reproduced": "the criterion is met at the paper's own scale",
    "consistent-at-reduced-scale": "the criterion is met, on a smaller model or less data than the paper's",
    "direction-only": "an effect in the claimed direction, not shown to exceed the margin",
    "not-reproduced": "precise enough to tell, and the claim does not show",
    "contradicted": "the whole interval lies where the claim says it does not",
    "inconclusive": "cannot be decided: too few units or seeds, too wide, or a comparison without meaning",
    "stale": "code, data or parameters moved since the run that made the evidence",
    "not-attempted": "declared out of reach, with the reason",
}
HOLDS = "holds"
# Decimals of effect and limits: far below any noise, far above differences between machines.
DIGITS = 6


class _Unsound(Exception):
    """Evidence from which no comparison can be made; the text becomes the row's reason."""


@dataclass(frozen=True)
class _Sample:
    differences: np.ndarray  # (S, N) treatment minus control
    units: list[str]
    asked: int
    distinct: int  # seeds that differ from one another, on the side where fewer do


def judge(card: Card, evidence: dict[str, Any] | None, *, profile: str, stale: str = "", lock: str = "") -> dict:
    """One row of the ledger.

    Args:
        evidence: as `mmlib.evidence` writes it; read only if the claim was attempted and nothing is stale.
        profile: of the run.
        stale: why the evidence does not belong to the present code, data and parameters; empty if it does.
        lock: MD5 of the evidence as dvc.lock records it.
    """
    if card.not_attempted is not None:
        return _row(card, "not-attempted", card.not_attempted, profile, lock)
    if stale:
        return _row(card, "stale", stale, profile, lock)
    try:
        sample = _pair(card, evidence)
    except _Unsound as fault:
        return _row(card, "inconclusive", str(fault), profile, lock)
    interval = _effect(card, sample)
    problem = _shortfall(card, sample, profile) or _unmet(card, evidence) or _frozen(interval)
    verdict, reason = ("inconclusive", problem) if problem else _decide(card, interval)
    if verdict == HOLDS:
        at_paper = card.at_scale == "paper" and profile == "paper"
        verdict = "reproduced" if at_paper else "consistent-at-reduced-scale"
    return _row(card, verdict, reason, profile, lock, interval, sample.asked)


def _pair(card: Card, evidence: Any) -> _Sample:
    if not isinstance(evidence, dict) or evidence.get("schema") != SCHEMA:
        raise _Unsound(f"the evidence file does not follow schema {SCHEMA}")
    for key, expected in (("study", card.study), ("stage", card.stage)):
        if evidence.get(key) != expected:
            raise _Unsound(f"the evidence belongs to {key} {evidence.get(key)}, not {expected}")
    kind, treatment = _values(evidence, card.treatment)
    other, control = _values(evidence, card.control)
    if kind != other:
        raise _Unsound(f"treatment is measured on {kind} units, control on {other} units")
    signs = {evidence["metrics"][side.metric].get("higher_is_better") for side in (card.treatment, card.control)}
    if signs != {card.higher_is_better}:
        raise _Unsound(f"card and evidence disagree on whether a higher {card.treatment.metric} is better")
    asked = evidence.get("n_asked", {}).get(kind)
    if type(asked) is not int:
        raise _Unsound(f"the evidence does not say how many {kind} units were asked for")
    seeds = _common_seeds(treatment, control)
    units = evidence["units"][kind]
    rows = [np.subtract(_of(treatment, seed), _of(control, seed), dtype=float) for seed in seeds]
    distinct = min(_distinct(evidence, side, seeds) for side in (card.treatment, card.control))
    return _Sample(np.reshape(rows, (len(seeds), len(units))), units, asked, distinct)


def _values(evidence: dict[str, Any], side: Arm) -> tuple[str, dict[str, list[float]]]:
    """Unit kind and {seed: values} of one side, checked to be one finite number per unit."""
    metric = evidence.get("metrics", {}).get(side.metric)
    if metric is None:
        raise _Unsound(f"the evidence has no metric {side.metric}")
    units = _units(evidence, metric.get("units"))
    seeds = metric.get("values", {}).get(side.arm)
    if not seeds:
        raise _Unsound(f"{side.metric} was not measured on {side.arm}")
    if DETERMINISTIC in seeds and len(seeds) > 1:
        raise _Unsound(f"{side.metric} of {side.arm} is both with and without seeds")
    for seed, values in seeds.items():
        if not isinstance(values, list) or len(values) != len(units):
            raise _Unsound(f"{side.metric} of {side.arm} seed {seed} does not have one value per unit ({len(units)})")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            raise _Unsound(f"{side.metric} of {side.arm} seed {seed} has a value that is not a finite number")
    return metric["units"], seeds


def _units(evidence: dict[str, Any], kind: Any) -> list[str]:
    units = evidence.get("units", {}).get(kind)
    if not isinstance(units, list) or not units:
        raise _Unsound(f"the evidence lists no units of kind {kind}")
    twice = [unit for unit, count in Counter(units).items() if count > 1]
    if twice:
        raise _Unsound(f"unit {twice[0]} appears twice ({len(twice)} units do)")
    strata = Counter(unit.partition("/")[0] for unit in units)
    lonely = [name for name, count in strata.items() if count == 1]
    if lonely and len(units) > 1:
        raise _Unsound(f"stratum {lonely[0]} has a single {kind} unit, so its spread is unknown")
    return units


def _common_seeds(treatment: dict[str, Any], control: dict[str, Any]) -> list[str]:
    """Seeds that both sides have; a side without seeds pairs with every seed of the other."""
    sides = [set(side) for side in (treatment, control) if DETERMINISTIC not in side]
    return sorted(set.intersection(*sides)) if sides else [DETERMINISTIC]


def _distinct(evidence: dict[str, Any], side: Arm, seeds: list[str]) -> int:
    """How many of the seeds are runs of their own: a copied seed makes no sample larger.

    Two runs seldom agree in a continuous metric. Where right answers are counted they may, at the floor above all,
    so there two seeds are one run only if all metrics of the arm agree.
    """
    metrics = evidence["metrics"]
    if DETERMINISTIC in metrics[side.metric]["values"][side.arm]:
        return len(seeds)
    alone = metrics[side.metric].get("floor") is None
    names = [side.metric] if alone else [name for name in metrics if side.arm in metrics[name]["values"]]
    runs = {repr([metrics[name]["values"][side.arm].get(seed) for name in names]) for seed in seeds}
    return len(runs)


def _of(side: dict[str, list[float]], seed: str) -> list[float]:
    return side[DETERMINISTIC] if DETERMINISTIC in side else side[seed]


def _effect(card: Card, sample: _Sample) -> Interval | None:
    if sample.differences.size == 0:
        return None
    raw = paired_bootstrap(sample.differences, sample.units)
    ends = {key: round(getattr(raw, key) * card.scale, DIGITS) + 0.0 for key in ("effect", "low", "high")}
    return dataclasses.replace(raw, **ends)


def _shortfall(card: Card, sample: _Sample, profile: str) -> str:
    seeds, used = sample.differences.shape[0], len(sample.units)
    if seeds < card.seeds:
        return f"{seeds} of {card.seeds} seeds are there for both sides"
    if sample.distinct < card.seeds:
        return f"only {sample.distinct} of {card.seeds} seeds differ: copies, or all values at a limit of the metric"
    if used != sample.asked:
        return f"{used} units are there, {sample.asked} were asked for"
    return "the smoke profile tests the pipeline, its numbers mean nothing" if profile == "smoke" else ""


def _unmet(card: Card, evidence: Any) -> str:
    needs = card.requires
    if needs is None:
        return ""
    try:
        _, seeds = _values(evidence, Arm(needs.metric, needs.arm))
    except _Unsound as fault:
        return str(fault)
    mean = float(np.mean(list(seeds.values())))
    return "" if needs.met_by(mean) else f"the comparison requires {needs}, which is {mean:.4g}"


def _frozen(interval: Interval | None) -> str:
    if interval is None or interval.low != interval.high:
        return ""
    return "the interval has no width: every unit differs by the same amount, so nothing is known of its spread"


def _decide(card: Card, interval: Interval) -> tuple[str, str]:
    decide = _equivalence if card.criterion.kind == "equivalence" else _difference
    return decide(interval, card.criterion)


def _equivalence(interval: Interval, criterion: Criterion) -> tuple[str, str]:
    margin, half = criterion.margin, interval.half_width
    if equivalent(interval, margin):
        return HOLDS, f"the whole interval lies within ±{margin:g}"
    if interval.low > margin or interval.high < -margin:
        return "contradicted", f"the whole interval lies beyond ±{margin:g}"
    if half > margin:
        return "inconclusive", f"the interval is too wide: half of it, {half:.3g}, exceeds the margin {margin:g}"
    if interval.low <= 0 <= interval.high:
        return "inconclusive", f"the interval holds 0 and reaches beyond ±{margin:g}: both remain possible"
    return "not-reproduced", f"the interval leaves 0 out and reaches beyond ±{margin:g}"


def _difference(interval: Interval, criterion: Criterion) -> tuple[str, str]:
    margin = criterion.margin
    sign = 1 if criterion.direction == "positive" else -1
    near, far = sorted((sign * interval.low, sign * interval.high))
    if near > margin:
        return HOLDS, f"the whole interval is {criterion.direction} by more than {margin:g}"
    if near > 0:
        return "direction-only", f"the whole interval is {criterion.direction}, but it reaches below {margin:g}"
    if far < 0:
        return "contradicted", f"the claim is {criterion.direction}, the whole interval has the other sign"
    if far <= margin:
        return "not-reproduced", f"the interval holds 0 and leaves out every effect beyond the margin {margin:g}"
    return "inconclusive", f"the interval holds 0 and effects beyond the margin {margin:g}: both remain possible"


def _row(card: Card, verdict: str, reason: str, profile: str, lock: str,
         interval: Interval | None = None, asked: int | None = None) -> dict[str, Any]:  # fmt: skip
    facts = dataclasses.asdict(card)
    same = ("id", "study", "subject", "statement", "place", "version", "stage", "unit", "effect_unit", "treatment",
            "control", "criterion", "published")  # fmt: skip
    return {
        **{key: facts[key] for key in same},
        "verdict": verdict,
        "reason": reason,
        "metric": card.treatment.metric,
        "effect": interval and interval.effect,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "margin": card.criterion.margin,
        "seeds": interval.seeds if interval else 0,
        "seeds_asked": card.seeds,
        "n_used": interval.n if interval else 0,
        "n_asked": asked,
        "profile": profile,
        "lock": lock,
    }
