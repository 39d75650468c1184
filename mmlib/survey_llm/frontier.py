"""DPO of the byte model at the divergence of best-of-N (section 5.2): a frontier over learning rates, seed by seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmlib.evidence import Evidence
from mmlib.survey_llm import preferences

COUNT = preferences.BEST_OF[-1]
BEST, AT_BEST = f"best of {COUNT}", f"DPO at the divergence of best of {COUNT}"


def at_divergence(rates: dict[str, dict[str, list[float]]], nats: float) -> list[float]:
    """Win rate per prompt (R,) where the frontier, from the reference at 0 nats and 50 %, has diverged by `nats`.

    Between neighbours by straight lines in the square root of the divergence: near the reference the gain of a small
    step is linear in its length, and the divergence is quadratic in it.
    """
    points = sorted((float(np.mean(found["kl"])), found["win"]) for found in rates.values())
    places = np.sqrt([0.0, *(nats_of for nats_of, _ in points)])
    wins = np.array([[0.5] * len(points[0][1]), *(win for _, win in points)])  # (points, R)
    return [round(float(np.interp(np.sqrt(nats), places, column)), 5) for column in wins.T]


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Of the preference study's results, per prompt: wins and KL at every rate, wins of best-of-N, and of DPO there."""
    evidence, count = Evidence("survey_llm", "survey_llm-tuning"), settings["preference_prompts"]
    evidence.units("prompt", [f"prompt/{i}" for i in range(count)], asked=count)
    evidence.metric("win", units="prompt", higher_is_better=True, floor=0.5)
    evidence.metric("kl", units="prompt", higher_is_better=False, floor=None)
    for result in results:
        matched = at_divergence(result["near"], preferences.best_of_divergence(COUNT))
        wins = {f"DPO, rate {rate}": found["win"] for rate, found in result["near"].items()}
        best = result["scores"][f"{BEST}, true reward"]["win"]
        for arm, values in (wins | {BEST: best, AT_BEST: matched}).items():
            evidence.add("win", arm=arm, seed=result["seed"], values=values)
        for rate, found in result["near"].items():
            evidence.add("kl", arm=f"DPO, rate {rate}", seed=result["seed"], values=found["kl"])
    return evidence.as_dict()
