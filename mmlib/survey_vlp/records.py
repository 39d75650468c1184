"""From runs to evidence, and from evidence to what the reports show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib.evidence import Evidence
from mmlib.stats import mean_interval

if TYPE_CHECKING:
    from pandas import DataFrame

Metrics = dict[str, tuple[str, bool, float | None]]  # name -> (unit, higher is better, chance level)


def shards(arms: dict[str, dict[str, Any]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """A shard per arm and seed; an arm is a description in JSON."""
    return [
        {"name": f"{arm}/seed{seed}", "arm": arm, "seed": seed, "plan": plan, "settings": settings}
        for arm, plan in arms.items()
        for seed in settings["seeds"]
    ]


def as_evidence(stage: str, results: list[dict[str, Any]], metrics: Metrics, asked: dict[str, int]) -> dict[str, Any]:
    """Per unit the scores of every arm and seed; `asked` is the number of units of each kind."""
    evidence = Evidence("survey_vlp", stage)
    for unit, count in asked.items():
        evidence.units(unit, [f"{unit}/{number}" for number in range(count)], asked=count)
    for name, (unit, higher, floor) in metrics.items():
        evidence.metric(name, units=unit, higher_is_better=higher, floor=floor)
        for result in (r for r in results if name in r["scores"]):
            values = [round(float(value), 5) for value in result["scores"][name]]
            evidence.add(name, arm=result["arm"], seed=result["seed"], values=values)
    return evidence.as_dict()


def levels(evidence: dict[str, Any], metric: str, scale: float = 100.0) -> DataFrame:
    """Indexed by arm: `value, low, high, n, seeds`, 95 % over units and seeds, times `scale`."""
    import pandas

    found = {}
    for arm, seeds in evidence["metrics"][metric]["values"].items():
        interval = mean_interval(scale * np.array(list(seeds.values()), dtype=float))
        found[arm] = {"value": interval.effect, "low": interval.low, "high": interval.high,
                      "n": interval.n, "seeds": interval.seeds}  # fmt: skip
    return pandas.DataFrame(found).T


def costs(results: list[dict[str, Any]]) -> DataFrame:
    """Mean over seeds of what each arm cost."""
    import pandas

    frame = pandas.DataFrame({"arm": r["arm"], **r["cost"]} for r in results)
    return frame.groupby("arm", sort=False).mean()
