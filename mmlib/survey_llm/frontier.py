"""DPO of the byte model at the divergence of best-of-N (section 5.2): a frontier over learning rates, seed by seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmlib.evidence import Evidence
from mmlib.survey_llm import preferences, training

COUNT = preferences.BEST_OF[-1]
BEST, AT_BEST = f"best of {COUNT}", f"DPO at the divergence of best of {COUNT}"


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed: base model and pairs as in the preference study, DPO at every rate of the frontier, best of N."""
    import torch

    torch.set_num_threads(1)
    settings, seed, beta = shard["settings"], shard["seed"], shard["settings"]["beta"]
    base, source, held = preferences.prepared(settings, seed)
    pairs = preferences.training_pairs(base, source, settings, seed)
    prompts = training.windows(held, settings["preference_prompts"], preferences.PROMPT - 1, seed=0)
    theirs = preferences.sample(base, prompts, preferences.DRAWS + preferences.RIVALS, seed + 1)
    found = {}
    for rate in settings["frontier_rates"]:
        model = preferences.learn(base, "dpo", beta, pairs, settings, rate, seed)
        measured = preferences.measure(model, base, prompts, theirs, seed)
        found[f"{rate:g}"] = {name: measured[name] for name in ("reward", "win", "kl")}
    best = preferences.chosen(None, theirs)[f"{BEST}, true reward"]
    return {"kind": "frontier", "seed": seed, "rates": found, "best": best}


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
    """Per prompt: wins and KL at every rate, wins of best-of-N, and of DPO at its divergence."""
    evidence, count = Evidence("survey_llm", "survey_llm-smol"), settings["preference_prompts"]
    evidence.units("prompt", [f"prompt/{i}" for i in range(count)], asked=count)
    evidence.metric("win", units="prompt", higher_is_better=True, floor=0.5)
    evidence.metric("kl", units="prompt", higher_is_better=False, floor=None)
    for result in results:
        matched = at_divergence(result["rates"], preferences.best_of_divergence(COUNT))
        wins = {f"DPO, rate {rate}": found["win"] for rate, found in result["rates"].items()}
        for arm, values in (wins | {BEST: result["best"]["win"], AT_BEST: matched}).items():
            evidence.add("win", arm=arm, seed=result["seed"], values=values)
        for rate, found in result["rates"].items():
            evidence.add("kl", arm=f"DPO, rate {rate}", seed=result["seed"], values=found["kl"])
    return evidence.as_dict()
