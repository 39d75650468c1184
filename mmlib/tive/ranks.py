"""Whether two reference models put records in the same order, and the evidence of it."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from mmlib.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np

    from mmlib.tive.arms import Candidates

STAGE = "tive-values"


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where one of the columns has a single value and so puts nothing in order."""
    import numpy as np
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic) if np.ptp(one) > 0 and np.ptp(other) > 0 else 0.0


def by_task(part: Candidates, one: np.ndarray, other: np.ndarray) -> list[float]:
    """Rank correlation of two columns within every task."""
    return [rank_correlation(one[part.tasks == t], other[part.tasks == t]) for t in range(len(part.names))]


def as_evidence(parts: list[Candidates], names: tuple[str, ...] = ("influence", "norm")) -> dict[str, Any]:
    """Rank correlations within tasks between reference models, a pair of models a seed; and of shuffled values."""
    import numpy as np

    made, draw = Evidence("tive", STAGE), np.random.default_rng(0)
    made.units("task", [f"task/{name}" for name in parts[0].names], asked=len(parts[0].names))
    for name in names:
        made.metric(f"rank_{name}", units="task", higher_is_better=True, floor=None)
        for seed, (one, other) in enumerate(combinations(parts, 2)):
            mine, theirs = one.columns[name], other.columns[name]
            made.add(f"rank_{name}", arm="two seeds", seed=seed, values=_round(by_task(one, mine, theirs)))
            shuffled = within_tasks(one, theirs, draw)
            made.add(f"rank_{name}", arm="shuffled", seed=seed, values=_round(by_task(one, mine, shuffled)))
    return made.as_dict()


def within_tasks(part: Candidates, column: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The column with values shuffled among the records of a task."""
    made = column.copy()
    for task in range(len(part.names)):
        own = part.tasks == task
        made[own] = draw.permutation(made[own])
    return made


def _round(values: list[float]) -> list[float]:
    return [round(value, 6) for value in values]
