"""Tables and pictures of the reports: values of tasks and records, arms with their tests, cost with its break-even."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.tive import arms, comparisons, outcomes
from mmlib.tive.arms import ARMS, Candidates
from mmlib.tive.outcomes import FULL

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from mmlib.formats.llava import Record


def tasks(parts: list[Candidates], budget: int) -> DataFrame:
    """By task: records, mean answer tokens, value per reference model, and what each allocation takes of it."""
    import numpy
    import pandas

    first = parts[0]
    table = pandas.DataFrame({"records": first.sizes}, index=pandas.Index(first.names, name="task"))
    table["answer tokens"] = numpy.bincount(first.tasks, first.columns["answers"]) / first.sizes
    for number, part in enumerate(parts):
        table[f"d_t, reference {number}"] = arms.task_weights(part, "difficulty")
    for kind in ("source", "uniform", "difficulty", "squared", "summed"):
        table[f"takes, {kind}"] = arms.quotas(first, kind, budget)
    return table.sort_values("d_t, reference 0", ascending=False)


def extremes(part: Candidates, task: str, count: int) -> tuple[list[int], list[int]]:
    """Rows of the records of highest and of lowest influence of a task."""
    import numpy as np

    own = np.flatnonzero(part.tasks == part.names.index(task))
    order = own[np.argsort(-part.columns["influence"][own], kind="stable")]
    return part.places[order[:count]].tolist(), part.places[order[::-1][:count]].tolist()


def show(ax: Axes, record: Record, picture: np.ndarray | None, value: float, width: int = 34) -> None:
    """A record as a picture with its last question and answer under it."""
    import textwrap

    if picture is not None:
        ax.imshow(picture, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    asked = record.turns[-2].text.replace("<image>", "").partition("answer with a")[0].strip()
    text = f"{value:+.2f}  {asked} — {record.turns[-1].text}"
    ax.set_xlabel("\n".join(textwrap.wrap(text, width)[:4]), fontsize=6.5)


def drawn(name: str, part: Candidates, budget: int, seeds: list[int], q: float, q_standard: float) -> list[np.ndarray]:
    """What an arm takes with every seed."""
    return [arms.select(arms.ARMS[name], part, budget, seed, q, q_standard).rows for seed in seeds]


def answer_entropy(part: Candidates, rows: np.ndarray, task: str) -> float:
    """Bits of the answers of the chosen records of a task: few different answers give little."""
    import numpy as np

    place = {row: i for i, row in enumerate(part.places.tolist())}
    chosen = np.array([place[row] for row in rows.tolist()])
    own = chosen[part.tasks[chosen] == part.names.index(task)]
    _, counts = np.unique(part.classes[own], return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def arms_table(runs: DataFrame, budget: float) -> DataFrame:
    """By arm at equal steps: `above` with its spread between seeds, difference from random with test, what it saw."""
    same = runs[~runs["label"].str.endswith(outcomes.ONE_EPOCH)]
    at = outcomes.label("", budget).strip()
    part = same[(same["arm"] == FULL) | same["label"].str.endswith(f" {at}")]
    grouped = part.groupby("label")
    table = grouped["above"].agg(above="mean", spread="std", seeds="count")
    table = table.join(comparisons.against(part, outcomes.label("random", budget)).drop(columns="seeds"))
    for key in ("unique", "tokens", "images"):
        table[key] = grouped[f"seen {key}"].mean().round()
    table["what"] = [ARMS[name.split(" ")[0]].about if name != FULL else "all records" for name in table.index]
    return table.sort_values("above", ascending=False)


def with_limits(table: DataFrame) -> DataFrame:
    """95 % limits of the paired difference by Student's t over seeds: `low`, `high`; none for a single seed."""
    from scipy.stats import t

    half = table["se"] * t.ppf(0.975, (table["seeds"] - 1).clip(lower=1))
    return table.assign(low=table["effect"] - half, high=table["effect"] + half)


def by_benchmark(runs: DataFrame, names: list[str], control: str) -> DataFrame:
    """Arm by benchmark: mean over seeds of the difference from `control`, in points; with mean and median over them."""
    import pandas

    base = runs[runs["label"] == control].set_index("seed")[names]
    rows = {}
    for label, own in runs.groupby("label"):
        if label != control and not label.endswith(outcomes.ONE_EPOCH):
            pair = own.set_index("seed")[names]
            rows[label] = (pair - base.loc[base.index.intersection(pair.index)]).mean()
    table = pandas.DataFrame(rows).T
    return table.assign(mean=table[names].mean(axis=1), median=table[names].median(axis=1)).sort_values("mean")


def decomposition(runs: DataFrame, budget: float) -> DataFrame:
    """The 2 x 2 by seed: effect of the tasks' shares, of the choice within tasks, and of both beyond their sum."""
    import pandas

    wide = runs.pivot(index="seed", columns="label", values="above")
    cell = {arm: wide[outcomes.label(arm, budget)] for arm in ("random", "difficulty", "instance", "tive")}
    effects = {
        "tasks' shares": (cell["difficulty"] - cell["random"] + cell["tive"] - cell["instance"]) / 2,
        "records within tasks": (cell["instance"] - cell["random"] + cell["tive"] - cell["difficulty"]) / 2,
        "both beyond their sum": cell["tive"] - cell["difficulty"] - cell["instance"] + cell["random"],
    }
    table = pandas.DataFrame(effects).dropna().T
    return with_limits(pandas.DataFrame({
        "effect": table.mean(axis=1), "se": table.std(axis=1) / table.shape[1] ** 0.5, "seeds": table.shape[1],
    }))  # fmt: skip


def break_even(spent: dict[str, dict[str, float]], steps: list[dict[str, float]]) -> dict[str, float]:
    """Mean seconds of training on everything, of each step of the method, of training on its choice; reuses needed.

    Warm-up, gradients and values are paid once; every further target trained on the choice saves the difference
    between the two trainings. `targets` is how many it takes until the whole is cheaper (infinite: never).
    """
    import math

    def mean(values: Any) -> float:
        return sum(values) / len(values)

    full = mean(list(spent[FULL].values()))
    once = {name: mean([row[name] for row in steps]) for name in steps[0]}
    seeds = list(spent["tive"])
    training = mean([spent["tive"][seed] - sum(steps[int(seed) % len(steps)].values()) for seed in seeds])
    saved = full - training
    needed = math.ceil(sum(once.values()) / saved) if saved > 0 else math.inf
    return {"all records": full, **once, "training on the choice": training, "targets": needed}
