"""How many questions are right, what is wrong with the others, and whether a filter only changed the mix of types.

The paper could not measure this: on photographs from the web nobody knows the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import log2
from typing import Any

from mmlib.jade.truth import GARBLED, PRESUPPOSITION, RIGHT, VERDICTS, WRONG, judge
from mmlib.world.scenes import Scene

Row = dict[str, Any]
BANDS = (0.005, 0.02, 0.08)  # of an answer's share in the raw set: agreement on frequent answers is cheap


def judged(scene: Scene, rows: list[Row]) -> list[Row]:
    """The rows with their `verdict`."""
    return [{**row, "verdict": judge(scene, row["question"], row["answer"])} for row in rows]


def shares(rows: list[Row]) -> dict[str, float]:
    """Share of each verdict (they add up to 1); empty for no rows."""
    counted = Counter(row["verdict"] for row in rows)
    return {verdict: counted[verdict] / len(rows) for verdict in VERDICTS} if rows else {}


def precision(rows: list[Row]) -> float:
    """Share that is right.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("precision of no rows")
    return sum(row["verdict"] == RIGHT for row in rows) / len(rows)


def by(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    """Rows by the value of a key."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return dict(sorted(groups.items()))


def standardised(kept: list[Row], raw: list[Row]) -> float:
    """Precision of what was kept at the raw mix of types: sum over types of raw share x precision among the kept.

    Types of which nothing was kept have no precision; the rest is weighted anew (`covered` says how much that is).
    """
    mix, groups = by(raw, "type"), by(kept, "type")
    weights = {kind: len(rows) for kind, rows in mix.items() if kind in groups}
    if not weights:
        raise ValueError("no type was kept")
    return sum(weight * precision(groups[kind]) for kind, weight in weights.items()) / sum(weights.values())


def covered(kept: list[Row], raw: list[Row]) -> float:
    """Share of the raw rows whose type still occurs among the kept."""
    groups = by(kept, "type")
    return sum(row["type"] in groups for row in raw) / len(raw)


def entropy(values: Iterable[str]) -> float:
    """Of the distribution of values, in bits: a filter may collapse a set to its commonest answers."""
    counted = Counter(values)
    total = sum(counted.values())
    return -sum(n / total * log2(n / total) for n in counted.values())


def bands(rows: list[Row], raw: list[Row]) -> dict[str, list[Row]]:
    """Rows by how frequent their answer is in the raw set."""
    counted = Counter(row["answer"] for row in raw)
    limits = [0.0, *BANDS, 1.0]
    groups: dict[str, list[Row]] = {f"{low:g}-{high:g}": [] for low, high in pairwise(limits)}
    names = list(groups)
    for row in rows:
        share = counted[row["answer"]] / len(raw)
        groups[names[sum(share > limit for limit in BANDS)]].append(row)
    return groups


def report(kept: list[Row], raw: list[Row]) -> dict[str, Any]:
    """Numbers of an arm: kept share, precision, what is wrong, share kept of each verdict, entropies."""
    verdicts = Counter(row["verdict"] for row in kept)
    before = Counter(row["verdict"] for row in raw)
    return {
        "kept": len(kept) / len(raw),
        "precision": precision(kept),
        "standardised": standardised(kept, raw),
        "covered": covered(kept, raw),
        **{f"share {verdict}": verdicts[verdict] / len(kept) for verdict in (WRONG, PRESUPPOSITION, GARBLED)},
        **{f"kept of {verdict}": verdicts[verdict] / n for verdict, n in before.items() if n},
        "type entropy": entropy(row["type"] for row in kept),
        "answer entropy": entropy(row["answer"] for row in kept),
    }
