"""From selections to targets, and from targets to evidence.

The primary score of a run is the mean over benchmarks of (score - chance), in points. Chance is the same for all arms,
so that differences between arms are those of plain scores, which is what the evidence holds, item by item.
"""

from __future__ import annotations

from typing import Any

from mmlib.errors import UserError
from mmlib.evidence import Evidence

STAGE = "tive-targets"
FULL = "full"  # not chosen: all records
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
    selections: list[dict[str, Any]],
    rows: list[int],
    budgets: list[float],
    settings: dict[str, Any],
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
    plans += [(arm, budget, seed, True) for arm in settings["epoch_arms"] for seed in settings["few_seeds"]]
    plans += [(arm, budget, seed, False) for arm in settings["other_arms"] for seed in settings["few_seeds"]]
    plans += [(arm, small, seed, False) for arm in settings["small_arms"] for seed in settings["few_seeds"]]
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


def as_text(spent: dict[str, dict[int, float]]) -> dict[str, dict[str, float]]:
    """Keys as JSON has them."""
    return {arm: {str(seed): value for seed, value in by_seed.items()} for arm, by_seed in spent.items()}


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
