"""The stage that lets SmolLM2 think and prefer: shards of chains of thought (L4) and of preferences (L9)."""

from __future__ import annotations

from typing import Any

from mmlib.survey_llm import steering, thought

STUDIES = {"thought": thought, "steering": steering}
SECTIONS = {  # study -> names of its settings in the stage's section
    "thought": {"items": "thought_items"},
    "steering": {"pairs": "steering_pairs", "steps": "steering_steps", "batch": "steering_batch",
                 "prompts": "steering_prompts", "learning_rates": "steering_rates"},
}  # fmt: skip


def settings_of(study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What one study reads."""
    return {name: settings[key] for name, key in SECTIONS[study].items()} | {"seeds": settings["seeds"]}


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One study and seed, or one arm's learning rate in the steering."""
    module = STUDIES[shard["study"]]
    return module.search(shard) if "arm" in shard else module.run(shard)


def search(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Shards that choose learning rates, one an arm, on a seed that no result uses."""
    own = settings_of("steering", settings)
    return [
        {"name": f"steering/learning rate of {arm}", "study": "steering", "seed": settings["search_seed"], "arm": arm,
         "settings": own}
        for arm in steering.ARMS
    ]  # fmt: skip


def shards(study: str, settings: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """One shard per seed of a study; the steering needs its `rates`."""
    own = settings_of(study, settings)
    return [
        {"name": f"{study}/seed{seed}", "study": study, "seed": seed, "settings": own, **more}
        for seed in settings["seeds"]
    ]
