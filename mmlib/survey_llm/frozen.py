"""The stage that reads a frozen model: shards of decoding (L6) and of demonstrations (L3), SmolLM2-135M."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import store
from mmlib.evidence import Evidence
from mmlib.survey_llm.decoding import BEAMS, FIXED, HUMAN, RULES, decoding, prompt_windows
from mmlib.survey_llm.demonstrations import DEMONSTRATIONS, in_context, tasks
from mmlib.survey_llm.smol import opened

if TYPE_CHECKING:
    from pathlib import Path


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One arm of decoding with all repeats, or one arm and seed of demonstrations: `scores`, one entry per seed."""
    import torch

    torch.set_num_threads(1)
    root, settings, arm = store.project_root(), shard["settings"], shard["arm"]
    model, tokenizer = opened(root)
    if shard["kind"] == "demonstrations":
        scores = [in_context(model, tokenizer, root, shard)]
    else:
        repeats = 1 if arm in FIXED else len(settings["seeds"])
        scores = decoding(model, prompt_windows(tokenizer, root, settings), arm, repeats)
    return {"kind": shard["kind"], "arm": arm, "seed": shard["seed"], "scores": scores}


def shards(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Decoding arms with all their repeats, and demonstrations per seed."""
    plans = [("decoding", arm, 0) for arm in (HUMAN, *BEAMS, *RULES)]
    plans += [
        ("demonstrations", arm, s) for arm in DEMONSTRATIONS for s in settings["seeds"] if arm != "0 shots" or not s
    ]
    return [
        {"name": f"{arm}/seed{seed}", "kind": kind, "arm": arm, "seed": seed, "settings": settings}
        for kind, arm, seed in plans
    ]


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any], root: Path) -> dict[str, Any]:
    """Per prompt and per item; `gap` is the distance of a continuation's surprise to that of the text itself."""
    evidence, count = Evidence("survey_llm", "survey_llm-frozen"), settings["prompts"]
    evidence.units("prompt", [f"prompt/{i}" for i in range(count)], asked=count)
    items = [unit for task in tasks(root, settings) for unit in task.ids()]
    evidence.units("item", items, asked=settings["items"] * len(settings["tasks"]))
    for name, unit in (("repeated", "prompt"), ("distinct", "prompt"), ("surprise", "prompt"), ("gap", "prompt"),
                       ("exact", "item"), ("ranking", "item")):  # fmt: skip
        floor = {"exact": 0.0, "ranking": 0.25}.get(name)
        evidence.metric(name, units=unit, higher_is_better=name in ("exact", "ranking", "distinct"), floor=floor)
    human = next(np.array(r["scores"][0]["surprise"]) for r in results if r["arm"] == HUMAN)
    for result in results:
        alone = result["arm"] in (*FIXED, "0 shots")
        for number, scores in enumerate(result["scores"]):
            if result["kind"] == "decoding":
                scores = scores | {"gap": abs(np.array(scores["surprise"]) - human).round(5).tolist()}
            for name, values in scores.items():
                seed = None if alone else result["seed"] + number
                evidence.add(name, arm=result["arm"], seed=seed, values=values)
    return evidence.as_dict()
