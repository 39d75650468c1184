"""The stage that lets SmolLM2 think and prefer: shards of chains of thought (L4) and of preferences (L9)."""

from __future__ import annotations

from typing import Any

from mmlib.survey_llm import frontier, steering, thought

STUDIES = {"thought": thought, "steering": steering, "frontier": frontier}
SECTIONS = {  # study -> names of its settings in the stage's section
    "thought": {"items": "thought_items"},
    "steering": {"pairs": "steering_pairs", "steps": "steering_steps", "batch": "steering_batch",
                 "prompts": "steering_prompts", "learning_rates": "steering_rates"},
}  # fmt: skip


def settings_of(study: str, settings: dict[str, Any], bytes_settings: dict[str, Any]) -> dict[str, Any]:
    """What one study reads; the frontier continues the byte model's study and takes its settings from there."""
    if study == "frontier":
        names = ("preference_width", "preference_bytes", "preference_steps", "preference_batch", "preference_prompts",
                 "pairs", "beta")  # fmt: skip
        return {name: bytes_settings[name] for name in names} | {"frontier_rates": settings["frontier_rates"]}
    return {name: settings[key] for name, key in SECTIONS[study].items()} | {"seeds": settings["seeds"]}


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One study and seed, or the learning rates of the steering."""
    module = STUDIES[shard["study"]]
    return module.search(shard) if shard["search"] else module.run(shard)


def search(settings: dict[str, Any], bytes_settings: dict[str, Any]) -> dict[str, Any]:
    """The shard that chooses learning rates, on a seed that no result uses."""
    return {"name": "steering/learning rates", "study": "steering", "seed": settings["search_seed"], "search": True,
            "settings": settings_of("steering", settings, bytes_settings)}  # fmt: skip


def shards(settings: dict[str, Any], bytes_settings: dict[str, Any], rates: dict[str, float]) -> list[dict[str, Any]]:
    """One shard per study and seed."""
    return [
        {"name": f"{study}/seed{seed}", "study": study, "seed": seed, "search": False, "rates": rates,
         "settings": settings_of(study, settings, bytes_settings)}
        for study in STUDIES
        for seed in settings["seeds"]
    ]  # fmt: skip
