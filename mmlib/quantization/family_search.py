"""The learning rate of every member of the family, on problems that are neither taught nor tested.

An untuned family would compare how well its learning rate suits each size, not sizes. Every size gets the same grid at
half of its steps, on a seed of its own; the members, validated on the same problems at their full length, then show
what the second half of the training still brought. Rates are chosen by the mean log-probability of the worked
solution: at a few hundred problems it tells two rates apart where exact match is uncertain by three points.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from mmlib.quantization import family

SEED = 1000  # of initial weights and texts; no member of the family has it


def validate(shard: dict[str, Any]) -> dict[str, Any]:
    """One size, learning rate and number of steps -> means over validation problems at 16 bits."""
    import torch

    torch.set_num_threads(1)
    width, rate, steps = (shard[key] for key in ("width", "learning_rate", "steps"))
    trained = family.train(shard["settings"], width, SEED, rate, steps)
    return {"width": width, "learning_rate": rate, "steps": steps, **family.validated(trained, shard["settings"])}


def shards(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The same grid for every size at half its steps, the longest first."""
    lengths = sorted(zip(settings["sizes"], settings["steps"], strict=True), key=lambda pair: -family.work(*pair))
    return [
        {"name": f"w{width}/lr{rate}", "width": width, "learning_rate": rate, "steps": max(1, steps // 2),
         "settings": settings}
        for width, steps in lengths for rate in settings["learning_rates"]
    ]  # fmt: skip


def chosen(found: list[dict[str, Any]]) -> dict[int, float]:
    """Per size the learning rate with the best log-probability of the worked solution (the smaller one of equals)."""
    return best_rates(found, "width", "cot_logprob")


def best_rates(found: list[dict[str, Any]], of: str, measure: str) -> dict[Any, float]:
    """Per value of `of` the `learning_rate` of the best mean of `measure` over all its rows; the smaller of equals."""
    values: dict[Any, dict[float, list[float]]] = {}
    for row in sorted(found, key=lambda row: row["learning_rate"]):
        values.setdefault(row[of], {}).setdefault(row["learning_rate"], []).append(row[measure])
    return {key: max(rates, key=lambda rate: fmean(rates[rate])) for key, rates in values.items()}
