"""The arms of the experiment: which records each method takes for a budget, from one reference model's values.

An arm is an allocation over tasks, a value by which records are preferred, and how strictly; or the highest values of
the whole pool. All choose from the same tasks (those the released code chooses from) and take equally many records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError
from mmlib.tive import sampling, selection, values
from mmlib.tive.allocation import Rule, allocate
from mmlib.tive.labels import answer_classes, task_numbers
from mmlib.tive.selection import Selection

if TYPE_CHECKING:
    import numpy as np

    from mmlib.formats.llava import Record


@dataclass(frozen=True)
class Arm:
    """How an arm chooses.

    Attributes:
        about: for tables.
        weights: tasks in proportion to `source` (their sizes), `uniform`, `difficulty` (mean gradient norm), `squared`
            (mean squared norm), `summed` (norm of the summed loss); None: the highest values of all tasks together.
        by: the column that records are preferred by.
        sign: of the inverse temperature q: 0 is a uniform draw within the task, infinity its highest values.
        standard: q multiplies values less their task's mean over its standard deviation.
        classes: highest values within every answer class, in the classes' own shares.
        rule: for tasks that are smaller than their quota.
    """

    about: str
    weights: str | None
    by: str = "influence"
    sign: float = 1.0
    standard: bool = False
    classes: bool = False
    rule: Rule = "duplicate"


ARMS = {
    "random": Arm("random, tasks as in the pool", "source", sign=0),
    "uniform": Arm("equally many per task, random", "uniform", sign=0),
    "difficulty": Arm("task value alone (q = 0)", "difficulty", sign=0),
    "instance": Arm("instance value alone, tasks as in the pool", "source"),
    "tive": Arm("TIVE", "difficulty"),
    "sign": Arm("TIVE with -q", "difficulty", sign=-1),
    "standardised": Arm("TIVE, q per standard deviation", "difficulty", standard=True),
    "top": Arm("highest influence in each task", "difficulty", sign=math.inf),
    "top-in-class": Arm("highest influence in each answer class", "difficulty", classes=True, rule="cap"),
    "grand-in-task": Arm("GraNd in each task", "difficulty", by="norm", sign=math.inf),
    "uniform-instance": Arm("equally many per task, instance value", "uniform"),
    "capped": Arm("TIVE without repeats", "difficulty", rule="cap"),
    "squared": Arm("TIVE, squared norms", "squared"),
    "summed": Arm("TIVE, norms of summed losses", "summed"),
    "global": Arm("highest influence of all", None, by="influence_all"),
    "grand": Arm("GraNd", None, by="norm"),
    "el2n": Arm("EL2N", None, by="el2n"),
    "perplexity": Arm("perplexity", None, by="perplexity"),
    "length": Arm("longest answers", None, by="answers"),
    "less": Arm("LESS, knowing the benchmarks", None, by="less"),
}


@dataclass(frozen=True)
class Candidates:
    """Records that may be chosen, in pool order, and one reference model's columns of them."""

    places: np.ndarray  # (n,) row of each in the pool that was measured
    tasks: np.ndarray  # (n,) numbers of `names`
    names: list[str]
    classes: np.ndarray  # (n,) answers as text
    columns: dict[str, np.ndarray]  # (n,) each

    @cached_property
    def sizes(self) -> np.ndarray:
        """Records per task."""
        import numpy as np

        return np.bincount(self.tasks, minlength=len(self.names))

    def column(self, name: str) -> np.ndarray:
        """A column by name; perplexity is made of the loss."""
        return values.perplexity(self.columns["loss"]) if name == "perplexity" else self.columns[name]


def candidates(records: list[Record], columns: dict[str, list[float]], left_out: list[str]) -> Candidates:
    """All records but those of the tasks that are left out.

    Raises:
        UserError: columns of another length than the records, or an unknown task to leave out.
    """
    import numpy as np

    tasks, names = task_numbers(records)
    if alien := sorted(set(left_out) - set(names)):
        raise UserError(f"no record of task {alien[0]}, which shall be left out", f"tasks are: {', '.join(names)}")
    if wrong := next((name for name, column in columns.items() if len(column) != len(records)), None):
        raise UserError(f"{len(columns[wrong])} values `{wrong}` of {len(records)} records", "use one pool for both")
    places = np.flatnonzero(~np.isin(np.array(names)[tasks], left_out))
    kept = [record for row in places.tolist() for record in [records[row]]]
    own, own_names = task_numbers(kept)
    return Candidates(places, own, own_names, answer_classes(kept),
                      {name: np.asarray(column, float)[places] for name, column in columns.items()})  # fmt: skip


def task_weights(part: Candidates, kind: str) -> np.ndarray:
    """Weights of the tasks, float64 (K,); see `Arm`."""
    import numpy as np

    norms, answers, count = part.columns["norm"], part.columns["answers"], len(part.names)
    ways: dict[str, Any] = {
        "source": lambda: part.sizes.astype(float),
        "uniform": lambda: np.ones(count),
        "difficulty": lambda: values.task_value(norms, part.tasks, count),
        "squared": lambda: values.task_value(norms, part.tasks, count, power=2),
        "summed": lambda: values.task_value(norms * answers, part.tasks, count),
    }
    if kind not in ways:
        raise UserError(f"unknown weights of tasks `{kind}`", f"choose from: {', '.join(ways)}")
    return ways[kind]()


def quotas(part: Candidates, kind: str, budget: int, rule: Rule = "duplicate") -> np.ndarray:
    """Records that each task gives, int64 (K,)."""
    return allocate(part.sizes, task_weights(part, kind), budget, rule)


def select(arm: Arm, part: Candidates, budget: int, seed: int, q: float, q_standard: float) -> Selection:
    """The records an arm takes; `rows` are numbers in the pool that was measured.

    Args:
        q: inverse temperature of mean cosines; `q_standard`: of standardised ones.
    """
    import dataclasses

    made = _select(arm, part, budget, seed, q_standard if arm.standard else q)
    return dataclasses.replace(made, rows=part.places[made.rows])


def _select(arm: Arm, part: Candidates, budget: int, seed: int, q: float) -> Selection:
    preferred = part.column(arm.by)
    if arm.weights is None:
        return selection.over_all(part.tasks, part.names, preferred, budget)
    counts = quotas(part, arm.weights, budget, arm.rule)
    if arm.classes:
        return selection.in_classes(part.tasks, part.names, counts, preferred, part.classes)
    if arm.standard:
        preferred = values.standardise(preferred, part.tasks, len(part.names))
    strength = arm.sign if math.isinf(arm.sign) else arm.sign * q
    if math.isinf(strength):
        choose = sampling.top if strength > 0 else lambda own, count, draw: sampling.top(-own, count)
        return selection.by_task(part.tasks, part.names, counts, preferred, seed, choose=choose)
    return selection.by_task(part.tasks, part.names, counts, preferred, seed, q=strength)


def q_sweep(part: Candidates, counts: np.ndarray, sweep: list[float], seed: int) -> list[dict[str, Any]]:
    """Per q and task: effective share and lift of influence, whether it is as good as uniform."""
    found = []
    for q in sweep:
        report = selection.by_task(part.tasks, part.names, counts, part.columns["influence"], seed, q=q).report
        found += [{"q": q, **line} for line in report]
    return found
