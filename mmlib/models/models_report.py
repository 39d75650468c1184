"""Tables of the base models' report: scores by benchmark, spread between runs, and what the models had to reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.stats import mean_interval
from mmlib.world.benchmarks import BENCHMARKS

if TYPE_CHECKING:
    from pandas import DataFrame

BISTABLE = 15.0  # points between the best and the worst run of a benchmark
Results = list[dict[str, Any]]


def by_benchmark(results: Results, chance: dict[str, float]) -> DataFrame:
    """A row per share and benchmark, in points: `share, benchmark, trained, chance, value, low, high, worst, best`.

    Intervals resample items and runs; `worst` and `best` are single runs.
    """
    import numpy
    import pandas

    rows = []
    for share in shares(results):
        runs = [result["scores"] for result in results if result["share"] == share]
        for benchmark in BENCHMARKS:
            scores = 100 * numpy.array([run[benchmark.name] for run in runs], dtype=float)  # (runs, items)
            interval = mean_interval(scores)
            what = {"share": share, "benchmark": benchmark.name, "trained": benchmark.trained}
            measured = {"value": interval.effect, "low": interval.low, "high": interval.high}
            extremes = {"worst": scores.mean(1).min(), "best": scores.mean(1).max()}
            rows.append({**what, "chance": 100 * chance[benchmark.name], **measured, **extremes})
    return pandas.DataFrame(rows)


def shares(results: Results) -> list[float]:
    """Shares of the pool, the largest first."""
    return sorted({result["share"] for result in results}, reverse=True)


def by_run(results: Results) -> DataFrame:
    """A row per run: `share, records, seed` and the `mean` over benchmarks in points."""
    import numpy
    import pandas

    return pandas.DataFrame([
        {"share": result["share"], "records": result["records"], "seed": result["seed"],
         "mean": 100 * numpy.mean([numpy.mean(scores) for scores in result["scores"].values()])}
        for result in results
    ])  # fmt: skip


def requirements(table: DataFrame, runs: DataFrame, llava: dict[str, float]) -> list[dict[str, Any]]:
    """What the studies need of the models: `what, wanted, measured, met`. Benchmark figures are of the full pool."""
    most = table["share"].max()
    full, part = table[table["share"] == most], runs.groupby("share")["mean"].mean()
    above = full["value"] - full["chance"]
    untrained = full[~full["trained"]]
    checks = [
        ("things named in captions of test scenes", "at least 0.90", llava["caption_names"], 0.90, None),
        ("mean over benchmarks above chance, points", "at least 30", above.mean(), 30, None),
        ("benchmarks whose interval reaches chance", "0", int((full["low"] <= full["chance"]).sum()), None, 0),
        ("abilities no record teaches, above chance", "at least 2", int((untrained["low"] > untrained["chance"]).sum()),
         2, None),
        ("spread of the mean between runs (standard deviation), points", "at most 1",
         runs[runs["share"] == most]["mean"].std(), None, 1),
        (f"benchmarks with runs {BISTABLE:.0f} points apart", "0", int((full["best"] - full["worst"] > BISTABLE).sum()),
         None, 0),
        ("random part below the full pool, points", "at least 5", part.max() - part.loc[part.index.min()], 5, None),
    ]  # fmt: skip
    return [
        {"what": what, "wanted": wanted, "measured": round(float(measured), 2),
         "met": bool((least is None or measured >= least) and (most is None or measured <= most))}
        for what, wanted, measured, least, most in checks
    ]  # fmt: skip
