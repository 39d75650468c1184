"""Tables of the redundancy report: what a cut changed, on which benchmark, against the noise of the full mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.redundancy import cuts
from mmlib.redundancy.cuts import TRAINED, arm_of
from mmlib.stats import mean_interval, paired_bootstrap

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

Results = list[dict[str, Any]]
WAYS = {False: "plain", True: "exposure-matched"}


def scores(results: Results) -> DataFrame:
    """A row per run and benchmark: `arm, group, percent, way, seed, benchmark`, and the `score` in points."""
    import pandas

    rows = []
    for result in results:
        arm = arm_of(result["name"])
        what = {"arm": arm, **parse(arm), "seed": result["seed"]}
        for name, said in result["scores"].items():
            rows.append({**what, "benchmark": name, "score": 100 * sum(said) / len(said)})
    return pandas.DataFrame(rows)


def parse(arm: str) -> dict[str, Any]:
    """`okvqa-25-matched` -> group, percent and way; the full mixture is the plain 100 % of no group."""
    if arm == cuts.FULL:
        return {"group": "", "percent": 100, "way": WAYS[False]}
    matched = arm.endswith(cuts.MATCHED)
    name, percent = arm.removesuffix(cuts.MATCHED).rsplit("-", 1)
    return {"group": name, "percent": int(percent), "way": WAYS[matched]}


def noise(frame: DataFrame) -> DataFrame:
    """Per benchmark over the full mixture's runs: `value, sd, worst, best, runs`, in points."""
    full = frame[frame["arm"] == cuts.FULL].groupby("benchmark", sort=False)["score"]
    return full.agg(value="mean", sd="std", worst="min", best="max", runs="size")


def changes(frame: DataFrame) -> DataFrame:
    """Arm by benchmark: mean over seeds of the score minus that of the full mixture with the same seed, in points."""
    wide = frame.pivot_table(index=["arm", "seed"], columns="benchmark", values="score", sort=False)
    full = wide.loc[cuts.FULL]
    return (wide - full.reindex(wide.index, level="seed")).groupby(level="arm", sort=False).mean()


def matrix(frame: DataFrame, percent: int, way: str, groups: list[str]) -> tuple[DataFrame, DataFrame]:
    """Group by benchmark: the change in points, and whether it is beyond the noise of the full mixture.

    Beyond: more than twice sd · √(2 / seeds), the standard error of a difference of two means over so many runs, if
    only the training seed made them differ.
    """
    import numpy

    part = frame[(frame["percent"] == percent) & (frame["way"] == way) & frame["group"].isin(groups)]
    order = list(noise(frame).index)
    arms = [f"{name}-{percent}{cuts.MATCHED if way == WAYS[True] else ''}" for name in groups]
    table = changes(frame).loc[arms, order].set_axis(groups)
    band = 2 * noise(frame)["sd"] * numpy.sqrt(2 / part["seed"].nunique())
    return table, table.abs() > band[order]


def curves(evidence: dict[str, Any], group: str) -> DataFrame:
    """`percent, way, value, low, high, n, seeds` of the group's own benchmarks, in points; 100 % stands in both ways."""
    import pandas

    rows, metric = [], evidence["metrics"][f"own_{group}"]
    units = evidence["units"][metric["units"]]
    for arm, seeds in metric["values"].items():
        interval = mean_interval(100 * _table(seeds, sorted(seeds)), strata=units)
        row = {**parse(arm), "value": interval.effect, "low": interval.low, "high": interval.high,
               "n": interval.n, "seeds": interval.seeds}  # fmt: skip
        rows += [row, {**row, "way": WAYS[True]}] if arm == cuts.FULL else [row]
    return pandas.DataFrame(rows).sort_values(["way", "percent"], ascending=[False, False], ignore_index=True)


def contrast(evidence: dict[str, Any], metric: str, treatment: str, control: str) -> dict[str, float]:
    """Treatment minus control in points, paired by seed and item: `value, low, high, n, seeds`, 95 %."""
    declared = evidence["metrics"][metric]
    sides = [declared["values"][arm] for arm in (treatment, control)]
    seeds = sorted(set.intersection(*map(set, sides)))
    difference = _table(sides[0], seeds) - _table(sides[1], seeds)
    interval = paired_bootstrap(100 * difference, evidence["units"][declared["units"]])
    return {"value": interval.effect, "low": interval.low, "high": interval.high,
            "n": interval.n, "seeds": interval.seeds}  # fmt: skip


def _table(values: dict[str, list[float]], seeds: list[str]) -> np.ndarray:
    """(seeds, units)."""
    import numpy

    return numpy.array([values[seed] for seed in seeds], dtype=float)


def own_changes(evidence: dict[str, Any], groups: list[str]) -> DataFrame:
    """A row per group and cut: `group, percent, way`, change of the group's own benchmarks against full, interval."""
    import pandas

    rows = []
    for name in groups:
        metric = f"own_{name}"
        for arm in evidence["metrics"][metric]["values"]:
            if arm != cuts.FULL:
                rows.append({**parse(arm), **contrast(evidence, metric, arm, cuts.FULL)})
    return pandas.DataFrame(rows).sort_values(["percent", "way"], ascending=False, kind="stable", ignore_index=True)


def repeats(evidence: dict[str, Any], groups: list[str]) -> DataFrame:
    """What repeating the kept records gives: exposure-matched minus plain at equal records, by group and level."""
    import pandas

    rows = []
    for name in groups:
        arms = evidence["metrics"][f"own_{name}"]["values"]
        for arm in arms:
            plain = arm.removesuffix(cuts.MATCHED)
            if plain != arm and plain in arms:
                facts = parse(arm)
                rows.append({"group": name, "percent": facts["percent"],
                             **contrast(evidence, f"own_{name}", arm, plain)})  # fmt: skip
    return pandas.DataFrame(rows)


def beside_the_mean(frame: DataFrame, groups: list[str], percent: int) -> DataFrame:
    """Group and way: change on the group's own benchmarks, the mean over those that the pool trains, the median."""
    import pandas

    table, rows = changes(frame), []
    for name in groups:
        for matched, way in WAYS.items():
            arm = f"{name}-{percent}{cuts.MATCHED if matched else ''}"
            if arm in table.index:
                trained = table.loc[arm, list(TRAINED)]
                rows.append({"group": name, "way": way, "own": table.loc[arm, list(cuts.group(name).own)].mean(),
                             "mean": trained.mean(), "median": trained.median(),
                             "all": table.loc[arm].mean()})  # fmt: skip
    return pandas.DataFrame(rows)


def shown(stored: dict[str, Any]) -> DataFrame:
    """By arm that cuts one group: its different records, and how often a run shows one of them, against full."""
    import pandas

    counts, rows = stored["exposures"], []
    for arm, seen in counts.items():
        facts = parse(arm)
        if (name := facts["group"]) in seen:
            full = counts[cuts.FULL][name]
            rows.append({**facts, "records": seen[name]["records"], "of": full["records"],
                         "shows": seen[name]["shows"], "shows at full": full["shows"]})  # fmt: skip
    return pandas.DataFrame(rows)
