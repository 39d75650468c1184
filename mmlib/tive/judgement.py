"""How far values can be trusted: agreement between reference models, length of answers, faults in the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlib.tive import arms
from mmlib.tive.ranks import by_task, rank_correlation

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

    from mmlib.tive.arms import Candidates

STRATA = (1, 2, 4, 8, 16)  # lower ends of answer tokens


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


def taken(drawn: dict[str, list[np.ndarray]], marked: np.ndarray, places: np.ndarray) -> dict[str, dict[str, float]]:
    """What each arm takes of the rows in `places`: how many (mean over draws), and the share of marked rows among
    them over that in `places` (1: as many as there are; NaN where nothing was taken).

    Args:
        drawn: by arm, rows of the pool of every draw.
        marked: bool of every row of the pool.
    """
    import numpy as np

    counts, ratios = {}, {}
    for arm, lists in drawn.items():
        own = np.concatenate([rows[np.isin(rows, places)] for rows in lists])
        counts[arm] = len(own) / len(lists)
        ratios[arm] = float(marked[own].mean() / marked[places].mean()) if len(own) else float("nan")
    return {"taken": counts, "ratio": ratios}


def both_copies(rows: np.ndarray, twin: dict[int, int]) -> int:
    """How many copies are taken along with the record that they copy.

    Args:
        twin: row of the copy -> row of the original.
    """
    chosen = set(rows.tolist())
    return sum(copy in chosen and original in chosen for copy, original in twin.items())
