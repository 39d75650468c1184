"""The learning rate of each way of fine-tuning: the same grid and seeds for all, chosen on validation problems."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

from mmlib import store
from mmlib.quantization import arithmetic, compensation, family


def validate(shard: dict[str, Any]) -> dict[str, Any]:
    """One method, learning rate and seed at 16 bits -> exact match on validation problems. No test problem is read."""
    import torch

    torch.set_num_threads(1)
    settings, base, method = shard["settings"], shard["base"], shard["method"]
    start = family.load(base, settings["width"], shard["seed"], store.project_root() / compensation.FOLDER)
    known = [*start.tests, start.demonstration]
    problems = arithmetic.validation_problems(base["items"], base["largest"], known)
    texts = compensation.tuning_texts(base, settings, shard["seed"], [*start.tests, *problems], "validate")
    model = start.model
    if method == "lora":
        model = compensation.add_lora(
            model, settings["rank"], settings["alpha"], shard["seed"], family.FULL_BITS, base["group"]
        )
    compensation.tune(model, texts, start.tokenizer, settings, shard["learning_rate"], shard["seed"])
    asked = replace(start, tests=problems)
    solved = [family.strict(a, p) for a, p in zip(family.say(asked, model), problems, strict=True)]
    return {"method": method, "learning_rate": shard["learning_rate"], "solved": sum(solved) / len(solved)}


def validation_shards(base: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The same grid of learning rates and the same seeds for both methods."""
    return [
        {"name": f"{method}/lr{rate}/seed{seed}", "method": method, "learning_rate": rate, "seed": seed,
         "settings": settings, "base": base}
        for method in compensation.METHODS for rate in settings["learning_rates"] for seed in base["seeds"]
    ]  # fmt: skip


def chosen(validated: list[dict[str, Any]]) -> dict[str, float]:
    """Per method the learning rate of the best mean over seeds (the smaller one of equals)."""
    means: dict[str, dict[float, float]] = {}
    for method in compensation.METHODS:
        rows = [row for row in validated if row["method"] == method]
        rates = sorted({row["learning_rate"] for row in rows})
        means[method] = {rate: fmean(r["solved"] for r in rows if r["learning_rate"] == rate) for rate in rates}
    return {method: max(by_rate, key=by_rate.__getitem__) for method, by_rate in means.items()}
