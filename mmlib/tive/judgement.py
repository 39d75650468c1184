"""How far values can be trusted: agreement between reference models, length, faults in the pool; evidence of ranks."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from mmlib.evidence import Evidence
from mmlib.tive import arms
from mmlib.tive.arms import Candidates

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

STAGE = "tive-values"
STRATA = (1, 2, 4, 8, 16)  # lower ends of answer tokens


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


def agreement(first: Candidates, others: dict[str, Candidates]) -> DataFrame:
    """Against the first model: rank correlation of task values, mean within tasks of norm's and influence's."""
    import numpy
    import pandas

    rows, own = {}, arms.task_weights(first, "difficulty")
    for name, other in others.items():
        rows[name] = {"task values": rank_correlation(own, arms.task_weights(other, "difficulty"))}
        for column in ("norm", "influence"):
            rows[name][column] = float(numpy.mean(by_task(first, first.columns[column], other.columns[column])))
    return pandas.DataFrame(rows).T


def lengths(part: Candidates) -> dict[str, float]:
    """Rank correlations of length (answer tokens) with norm and loss, over records and within tasks, and over tasks."""
    import numpy as np

    norms, losses, answers = (part.columns[name] for name in ("norm", "loss", "answers"))
    varied = [t for t in range(len(part.names)) if np.ptp(answers[part.tasks == t]) > 0]
    within = [rank_correlation(norms[part.tasks == t], answers[part.tasks == t]) for t in varied]
    means = np.bincount(part.tasks, answers) / part.sizes
    return {
        "norm and length, all records": rank_correlation(norms, answers),
        "norm and length, mean within tasks": float(np.mean(within)),
        "norm and loss, all records": rank_correlation(norms, losses),
        "task value and mean length, tasks": rank_correlation(arms.task_weights(part, "difficulty"), means),
        "task value of summed losses and mean length, tasks":
            rank_correlation(arms.task_weights(part, "summed"), means),
    }  # fmt: skip


def strata(part: Candidates) -> DataFrame:
    """Mean norm by task and stratum of answer tokens: whether tasks differ beyond the length of their answers."""
    import numpy as np
    import pandas

    labels = [f"{low}+" for low in STRATA]
    place = np.searchsorted(STRATA, part.columns["answers"], side="right") - 1
    rows = pandas.DataFrame({"task": np.array(part.names)[part.tasks], "norm": part.columns["norm"],
                             "answer tokens": pandas.Categorical.from_codes(place, labels, ordered=True)})  # fmt: skip
    return rows.pivot_table(index="task", columns="answer tokens", values="norm", observed=True)


def taken(selections: dict[str, np.ndarray], marked: np.ndarray) -> dict[str, dict[str, float]]:
    """Share of marked rows among what each arm takes, and over their share of the pool (1: as often as any row).

    Args:
        selections: by arm, rows of the pool; marked: bool of every row that could be chosen by its number there.
    """
    base = float(marked.mean())
    shares = {arm: float(marked[rows].mean()) for arm, rows in selections.items()}
    return {arm: {"share": share, "ratio": share / base} for arm, share in shares.items()}


def both_copies(rows: np.ndarray, twin: dict[int, int]) -> int:
    """How many copies are taken along with the record that they copy.

    Args:
        twin: row of the copy -> row of the original.
    """
    chosen = set(rows.tolist())
    return sum(copy in chosen and original in chosen for copy, original in twin.items())
