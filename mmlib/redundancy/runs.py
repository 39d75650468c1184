"""Runs of the redundancy study, and their evidence.

One run is one target of `mmlib.tive.target`: the aligned LLaVA tuned on the rows that a cut leaves, in as many steps as
on the full mixture. Runs are paired by seed: it decides the order of the records, the rehearsals and what a cut leaves.
The runs on the full mixture are those of the stage `world-tuning`, which tunes by the same function and settings.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.models import clip
from mmlib.redundancy import cuts
from mmlib.redundancy.cuts import TRAINED, arm_of

Result = dict[str, Any]
STUDY, STAGE = "redundancy", "redundancy-cuts"


def shards(settings: dict[str, Any], recipe: dict[str, Any], rows: list[int], labels: list[str]) -> list[Result]:
    """A shard per seed and cut, for `target.evaluate`; seed by seed, so that a run that ends early has whole seeds."""
    return [
        {"name": f"{cut.arm}/seed{seed}", "seed": seed, "rows": cuts.remaining(cut, rows, labels, seed),
         "recipe": recipe}
        for seed in settings["seeds"]
        for cut in cuts.all_cuts(settings) if cut.groups
    ]  # fmt: skip


def on_everything(tuning: Result, settings: dict[str, Any], recipe: dict[str, Any]) -> list[Result]:
    """Results of the full mixture, of every seed that `world-tuning` has: more than the cuts', for the band of noise.

    Raises:
        UserError: other settings there, or a seed of the cuts that it does not have.
    """
    if other := [key for key, value in tuning["settings"].items() if recipe.get(key) != value]:
        raise UserError(f"world-tuning ran with another {', '.join(other)}", "run `make reproduce` again")
    found = [run for run in tuning["results"] if run["share"] == 1]
    if missing := set(settings["seeds"]) - {run["seed"] for run in found}:
        raise UserError(f"seeds {sorted(missing)} have no run on all records", "add them to `world.tuning.seeds`")
    kept = ("seed", "curve", "scores", "said")
    return [{"name": f"{cuts.FULL}/seed{run['seed']}", **{key: run[key] for key in kept}} for run in found]


def exposures(rows: list[int], labels: list[str], recipe: dict[str, Any], seed: int) -> dict[str, dict[str, int]]:
    """Per group: `records` that are different, and how often a run `shows` one of them.

    Args:
        rows: what the run trains on, in order (`remaining`); recipe: its steps, rehearsals and batch size.
    """
    of = {label: g.name for g in cuts.GROUPS for label in g.labels}
    count = (recipe["steps"] - recipe["rehearsed"]) * recipe["batch"]
    shown = Counter(of.get(labels[rows[i]]) for i in clip.epochs(len(rows), count, seed))  # as stage 2 draws them
    different = Counter(of.get(labels[row]) for row in set(rows))
    return {g.name: {"records": different[g.name], "shows": shown[g.name]} for g in cuts.GROUPS}


def as_evidence(results: list[Result], settings: dict[str, Any], chance: dict[str, float]) -> dict[str, Any]:
    """Per item the scores that the claims compare, of every seed.

    `own_<group>`: the group's own benchmarks. `own`, `other`: over all groups, each cut alone. An item of `own` is
    answered by the runs that cut its own group; one of `other` by those that cut another one, as the mean over them.
    `mean`: all benchmarks that the pool trains, of the runs that cut several groups at once.
    """
    by_arm: dict[str, dict[int, dict[str, list[float]]]] = {}
    for result in results:
        by_arm.setdefault(arm_of(result["name"]), {})[result["seed"]] = result["scores"]
    made, items = Evidence(STUDY, STAGE), len(results[0]["scores"][TRAINED[0]])
    groups = [cuts.group(name) for name in settings["groups"]]
    for group in groups:
        _declare(made, f"own_{group.name}", group.own, items, settings["items"], chance)
        for arm in [cuts.FULL, *(arm for arm in by_arm if arm.startswith(f"{group.name}-"))]:
            _add(made, f"own_{group.name}", arm, by_arm[arm], group.own)
    _declare(made, "mean", TRAINED, items, settings["items"], chance)
    for arm in [cuts.FULL, *(arm for arm in by_arm if arm.startswith(f"{cuts.SEVERAL}-"))]:
        _add(made, "mean", arm, by_arm[arm], TRAINED)
    _add_pooled(made, groups, by_arm, items, settings, chance)
    return made.as_dict()


def _declare(
    made: Evidence, metric: str, names: tuple[str, ...], items: int, asked: int, chance: dict[str, float]
) -> None:
    """A metric over the items of some benchmarks; ids carry the benchmark, within which they are resampled."""
    made.units(metric, [f"{name}/{i:04d}" for name in names for i in range(items)], asked=asked * len(names))
    floor = sum(chance[name] for name in names) / len(names)
    made.metric(metric, units=metric, higher_is_better=True, floor=floor)


def _add(made: Evidence, metric: str, arm: str, runs: dict[int, dict], names: tuple[str, ...]) -> None:
    for seed, scores in runs.items():
        made.add(metric, arm=arm, seed=seed, values=[value for name in names for value in scores[name]])


def _add_pooled(
    made: Evidence, groups: list[cuts.Group], by_arm: dict, items: int, settings: dict[str, Any], chance: dict
) -> None:
    ways = [str(level) for level in settings["plain_levels"]]
    ways += [f"{level}{cuts.MATCHED}" for level in settings["matched_levels"]]
    for metric, owned in (("own", True), ("other", False)):
        judges = {name: [g.name for g in groups if (name in g.own) == owned] for name in TRAINED}
        names = tuple(name for name in TRAINED if judges[name])
        _declare(made, metric, names, items, settings["items"], chance)
        _add(made, metric, cuts.FULL, by_arm[cuts.FULL], names)
        for way in ways:
            for seed in settings["seeds"]:
                runs = {name: [by_arm[f"{g}-{way}"][seed][name] for g in judges[name]] for name in names}
                values = [round(sum(said) / len(said), 5) for name in names for said in zip(*runs[name], strict=True)]
                made.add(metric, arm=f"cut-{way}", seed=seed, values=values)
