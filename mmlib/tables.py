"""Tables that every report shows: levels of all arms with intervals, and a study's claims with their verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.stats import mean_interval

if TYPE_CHECKING:
    from pandas import DataFrame

NATS = (
    "nll",
    "kl",
    "direct_logprob",
    "cot_logprob",
)  # metrics that are shown as they are; all others are shares, shown in percent


def levels(evidence: dict[str, Any]) -> DataFrame:
    """One row per arm and metric: `arm, metric, value, low, high, n, seeds`, with 95 % intervals.

    Intervals resample units (stratified by the part of their id before the slash) and seeds.
    """
    import numpy
    import pandas

    rows = []
    for metric, declared in sorted(evidence["metrics"].items()):
        units = evidence["units"][declared["units"]]
        strata = [unit.split("/")[0] for unit in units]
        scale = 1 if metric in NATS else 100
        for arm, seeds in sorted(declared["values"].items()):
            interval = mean_interval(scale * numpy.array(list(seeds.values()), dtype=float), strata=strata)
            rows.append({"arm": arm, "metric": metric, "value": interval.effect, "low": interval.low,
                         "high": interval.high, "n": len(units), "seeds": len(seeds)})  # fmt: skip
    return pandas.DataFrame(rows)


def summary(frame: DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """`levels` as arm -> metric -> value, low, high: the small metrics file that a report keeps in git."""
    found: dict[str, dict[str, dict[str, float]]] = {arm: {} for arm in frame["arm"]}
    for row in frame.to_dict("records"):
        found[row["arm"]][row["metric"]] = {key: round(row[key], 4) for key in ("value", "low", "high")}
    return found


def claims(rows: list[dict[str, Any]]) -> str:
    """Ledger rows as a Markdown table: model, statement, published and own effect, verdict with its reason."""
    lines = ["| claim | about | statement | paper | ours [95 %] | verdict |", "|---|---|---|---|---|---|"]
    for row in rows:
        paper = "" if row["published"] is None else f"{row['published']['effect']:+.3g} ({row['published']['label']})"
        ours = "" if row["effect"] is None else f"{row['effect']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
        verdict = f"**{row['verdict']}**: {row['reason']}"
        lines.append(f"| {row['id']} | {row['subject']} | {row['statement']} | {paper} | {ours} | {verdict} |")
    return "\n".join(lines)
