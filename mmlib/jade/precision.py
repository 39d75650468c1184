"""How many questions are right, what is wrong with the others, and how the kept ones are spread over answers.

The paper could not measure this: on photographs from the web nobody knows the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import log2
from typing import Any

from mmlib.jade.truth import RIGHT, VERDICTS, judge
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
