"""From selections to targets, from targets to evidence; tests of all arms against random, corrected for their number.

The primary score of a run is the mean over benchmarks of (score - chance), in points. Chance is the same for all arms,
so that differences between arms are those of plain scores, which is what the evidence holds, item by item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.tive.arms import FULL

if TYPE_CHECKING:
    from pandas import DataFrame

STAGE = "tive-targets"
NEARLY = 0.95  # of full: what random is said to keep
ONE_EPOCH = "one epoch"  # as many steps as the selected records fill, as published
# Where the published gains lie: multiple choice and what one has to know beside the picture.
NAMED = ("choice", "knowledge")
Results = list[dict[str, Any]]


def label(arm: str, budget: float, epoch: bool = False) -> str:
    """`tive 15%`, `tive 15% one epoch`."""
    name = f"{arm} {100 * budget:g}%"
    return f"{name} {ONE_EPOCH}" if epoch else name


def shards(
    selections: list[dict[str, Any]], rows: list[int], budgets: list[float], settings: dict[str, Any],
    recipe: dict[str, Any],
) -> list[dict[str, Any]]:
    """A shard per arm, budget and seed.

    Args:
        selections: `arm, budget, seed, rows`, as the stage of the values wrote them.
        rows: of the whole part of the pool, for `full`.
        budgets: the main one and the small one.
        settings: section `tive.targets`.
    Raises:
        UserError: a selection that is not there.
    """
    chosen = {(s["arm"], s["budget"], s["seed"]): s["rows"] for s in selections}
    budget, small = budgets
    plans = [(arm, budget, seed, False) for arm in settings["main_arms"] for seed in settings["seeds"]]
    plans += [(arm, budget, seed, False) for arm in settings["other_arms"] for seed in settings["few_seeds"]]
    plans += [(arm, small, seed, False) for arm in settings["small_arms"] for seed in settings["few_seeds"]]
    plans += [(arm, budget, seed, True) for arm in settings["epoch_arms"] for seed in settings["few_seeds"]]
    made = [_shard(FULL, FULL, seed, rows, recipe) for seed in settings["seeds"]]
    for arm, part, seed, epoch in plans:
        if (arm, part, seed) not in chosen:
            raise UserError(f"no selection of {label(arm, part)} with seed {seed}", "run the stage tive-values again")
        how = shorter(recipe, part) if epoch else recipe
        made.append(_shard(label(arm, part, epoch), arm, seed, chosen[arm, part, seed], how))
    return made


def _shard(name: str, arm: str, seed: int, rows: list[int], recipe: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"{name}/{seed}", "label": name, "arm": arm, "seed": seed, "rows": rows, "recipe": recipe}


def shorter(recipe: dict[str, Any], share: float) -> dict[str, Any]:
    """The recipe with a share of its steps and rehearsals: as many epochs of a share of the records."""
    rehearsed = max(1, round(share * recipe["rehearsed"]))
    records = max(1, round(share * (recipe["steps"] - recipe["rehearsed"])))
    return {**recipe, "steps": records + rehearsed, "rehearsed": rehearsed}


def costs(results: Results, seconds: list[dict[str, float]], method: str) -> dict[str, dict[int, float]]:
    """Processor seconds by seed: of training on everything, and of all that `method` takes with one epoch of training.

    Args:
        seconds: of every reference model by step; target seed s uses reference s modulo their number.
    """
    spent = {FULL: {r["seed"]: r["seconds"] for r in results if r["label"] == FULL}}
    spent[method] = {
        r["seed"]: r["seconds"] + sum(seconds[r["seed"] % len(seconds)].values())
        for r in results
        if r["arm"] == method and r["label"].endswith(ONE_EPOCH)
    }
    return spent


def as_evidence(results: Results, recipe: dict[str, Any], chance: dict[str, float], spent: dict) -> dict[str, Any]:
    """Right or wrong for every item, arm and seed; the named benchmarks once more on their own; cost."""
    made, count = Evidence("tive", STAGE), recipe["items"]
    names = list(results[0]["scores"])
    made.units("item", [f"{name}/{i:04d}" for name in names for i in range(count)], asked=count * len(names))
    made.metric("score", units="item", higher_is_better=True, floor=round(sum(chance.values()) / len(names), 6))
    for name in NAMED:
        made.units(name, [f"{name}/{i:04d}" for i in range(count)], asked=count)
        made.metric(f"score_{name}", units=name, higher_is_better=True, floor=round(chance[name], 6))
    for result in results:
        _add(made, result)
    made.units("run", ["run/all"], asked=1)
    made.metric("cost", units="run", higher_is_better=False, floor=None)
    mean = sum(spent[FULL].values()) / len(spent[FULL])
    for arm, by_seed in spent.items():
        for seed, value in by_seed.items():
            made.add("cost", arm=arm, seed=seed, values=[round(value / mean, 6)])
    return made.as_dict()


def _add(made: Evidence, result: dict[str, Any]) -> None:
    arm, seed, scores = result["label"], result["seed"], result["scores"]
    flat = [value for values in scores.values() for value in values]
    made.add("score", arm=arm, seed=seed, values=flat)
    if arm == FULL:
        made.add("score", arm=f"{100 * NEARLY:g}% of full", seed=seed, values=[NEARLY * value for value in flat])
    for name in NAMED:
        made.add(f"score_{name}", arm=arm, seed=seed, values=scores[name])


def frame(results: Results, chance: dict[str, float]) -> DataFrame:
    """A row per run: `label, arm, seed`, `above` (the primary score), every benchmark's score in points, what it saw."""
    import numpy
    import pandas

    rows = []
    for result in results:
        points = {name: 100 * float(numpy.mean(values)) for name, values in result["scores"].items()}
        above = float(numpy.mean([value - 100 * chance[name] for name, value in points.items()]))
        facts = {"label": result["label"], "arm": result["arm"], "seed": result["seed"], "above": above}
        rows.append({**facts, **points, **{f"seen {key}": value for key, value in result["seen"].items()}})
    return pandas.DataFrame(rows)


def against(table: DataFrame, control: str, column: str = "above") -> DataFrame:
    """Every other arm minus `control`, paired by seed: `effect`, its standard error, `seeds`, `p`, `holm`.

    p of a paired t-test over seeds, two-sided; `holm` corrects for all arms of the table that have two seeds or more.
    """
    import pandas
    from scipy.stats import ttest_rel

    wide = table.pivot(index="seed", columns="label", values=column)
    rows = []
    for name in wide.columns.drop(control):
        pair = wide[[name, control]].dropna()
        difference = pair[name] - pair[control]
        sure = len(pair) > 1 and difference.std() > 0
        rows.append({"label": name, "effect": difference.mean(), "se": difference.std() / len(pair) ** 0.5,
                     "seeds": len(pair), "p": float(ttest_rel(pair[name], pair[control]).pvalue) if sure else None})
    made = pandas.DataFrame(rows).set_index("label")
    made["holm"] = holm(made["p"].dropna()).reindex(made.index)
    return made.sort_values("effect", ascending=False)


def holm(p: Any) -> Any:
    """Holm's step-down adjustment of a pandas Series of p-values (Scandinavian Journal of Statistics 6:65, 1979)."""
    import numpy

    order = p.sort_values()
    scaled = order.to_numpy() * numpy.arange(len(order), 0, -1)
    order[:] = numpy.minimum(1.0, numpy.maximum.accumulate(scaled)) if len(order) else scaled
    return order.reindex(p.index)
