"""The learning rate of each way of fine-tuning: the same grid and seeds for all, chosen on validation problems."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

from mmlib.quantization import arithmetic, compensation, family, family_search

WAYS = ("lora", "full", "distilled")  # distilled: LoRA on answers of the 16-bit model


def validate(shard: dict[str, Any]) -> list[dict[str, Any]]:
    """One way and seed at 16 bits, every learning rate -> exact match on validation problems. No test is read."""
    import torch

    torch.set_num_threads(1)
    settings, base, way, seed = shard["settings"], shard["base"], shard["way"], shard["seed"]
    start = compensation.load_base(base, seed)
    problems = family.validation_problems_of(base)
    texts = compensation.tuning_texts(base, settings, seed, [*start.tests, *problems], "validate")
    texts = compensation.distilled(texts, start) if way == "distilled" else texts
    rows = []
    for rate in settings["learning_rates"]:
        model = compensation.load_base(base, seed).model
        if way != "full":
            size = settings["rank"], settings["alpha"]
            model = compensation.add_lora(model, *size, seed, family.FULL_BITS, base["group"])
        compensation.tune(model, texts, start.tokenizer, settings, rate, seed)
        rows.append({"way": way, "learning_rate": rate, "seed": seed, "solved": _solved(start, model, problems)})
    return rows


def _solved(start: family.Subject, model: Any, problems: list[arithmetic.Problem]) -> float:
    asked = replace(start, tests=problems)
    return fmean(float(family.strict(a, p)) for a, p in zip(family.say(asked, model), problems, strict=True))


def validation_shards(base: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The same grid of learning rates and the same seeds for all ways."""
    return [
        {"name": f"{way}/seed{seed}", "way": way, "seed": seed, "settings": settings, "base": base}
        for way in WAYS for seed in settings["validation_seeds"]
    ]  # fmt: skip


def chosen(validated: list[dict[str, Any]]) -> dict[str, float]:
    """Per way the learning rate of the best mean over seeds (the smaller one of equals)."""
    return family_search.best_rates(validated, "way", "solved")
