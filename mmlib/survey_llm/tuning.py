"""The stage that tunes small models: shards of three studies, and of the search for their learning rates."""

from __future__ import annotations

from typing import Any

from mmlib.survey_llm import efficient, mixtures, preferences

STUDIES = ("mixtures", "peft", "preferences")


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One study and seed, or the learning rates of one study."""
    module = {"mixtures": mixtures, "peft": efficient, "preferences": preferences}[shard["study"]]
    return module.search(shard) if shard["search"] else {"study": shard["study"], **module.run(shard)}


def searches(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard for each study that compares ways of tuning; the mixtures differ in their data alone."""
    return [_shard(study, settings["search_seed"], settings, search=True) for study in STUDIES[1:]]


def shards(study: str, settings: dict[str, Any], rates: dict[str, float] | None = None) -> list[dict[str, Any]]:
    """One shard per seed of a study, seeds in order."""
    return [_shard(study, seed, settings, search=False, rates=rates or {}) for seed in settings["seeds"]]


def _shard(study: str, seed: int, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    name = f"{study}/{'learning rates' if more['search'] else f'seed{seed}'}"
    return {"name": name, "study": study, "seed": seed, "settings": settings, **more}
