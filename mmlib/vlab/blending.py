"""What one shard of stage 2 computes: a form of blending from one seed, on frozen encoders of stage 1."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.vlab.base import Settings, drawn, features, load_weights, open_base, tokenizer
from mmlib.vlab.study import parse_arm, rates

if TYPE_CHECKING:
    from torch import Tensor

    from mmlib.vlab.model import Arm, Vlab


def blend(shard: dict[str, Any]) -> dict[str, Any]:
    """Stage 2 of one form of blending from one seed: both encoders frozen, their tokens made once."""
    import torch

    from mmlib.vlab import training
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.measures import measure
    from mmlib.vlab.model import RATIOS, blended

    torch.set_num_threads(1)
    base, settings, seed = shard["base"], shard["settings"], shard["seed"]
    words, clip = tokenizer(base["nouns"]), open_base(base)
    arm, _ = parse_arm(shard["source"], settings["blocks"], settings["hidden"])
    stage1 = adapted(base, arm, shard["source"], seed)
    model = blended(stage1, clip, shard["arm"], seed)
    tokens = {split: branch_tokens(shard, arm, split, model.slots) for split in ("train", "test")}
    sequences, (pairs, _) = Sequences(words, settings["answer_share"]), drawn(base, "train")
    options = {"ratios": RATIOS, **settings, **rates(settings, settings["learning_rate"]), "name": shard["name"],
               "contrastive_steps": 0, "pace": 1.0, "clip_pace": 1.0}  # fmt: skip
    scratch = store.project_root() / ".scratch" / "vlab" / f"blend-{store.digest(shard)}"
    curve = training.train(model, sequences, pairs, tokens["train"], options, seed, scratch)
    test, _ = drawn(base, "test")
    return {
        "arm": shard["arm"], "seed": seed, "curve": curve,
        "parameters": sum(p.numel() for p in model.fusion.parameters()),
        "scores": measure(model, sequences, test, training.seer(tokens["test"])),
    }  # fmt: skip


def adapted(base: Settings, arm: Arm, source: str, seed: int) -> Vlab:
    """The stored stage-1 model of a seed."""
    from mmlib.vlab.model import Vlab

    path = store.project_root() / f"results/vlab/adapting/{source}-seed{seed}.safetensors"
    return load_weights(Vlab(open_base(base), arm, tokenizer(base["nouns"]).pad_token_id, seed), path)


def branch_tokens(shard: dict[str, Any], arm: Arm, split: str, slots: dict[str, str]) -> dict[str, Tensor]:
    """What each branch that a form of blending uses sees of a split; `other`: an adapted encoder of another seed."""
    key, seeds = json.dumps(shard["base"], sort_keys=True), {"video": shard["seed"], "other": shard.get("other")}
    found = {}
    for name in sorted(set(slots.values())):
        adapted_ones = (key, arm, shard["source"], seeds.get(name), split)
        found[name] = image_features(key, split) if name == "image" else video_features(*adapted_ones)
    return found


@lru_cache(maxsize=4)
def video_features(base_key: str, arm: Arm, source: str, seed: int, split: str) -> Tensor:
    """Tokens of the stored adapted encoder of a seed, a row per item. Kept: all forms of a seed share them."""
    from mmlib.vlab import training

    base = json.loads(base_key)
    stage1 = adapted(base, arm, source, seed)
    return training.encode(stage1, features(base, split, stage1.start))


@lru_cache(maxsize=2)
def image_features(base_key: str, split: str) -> Tensor:
    """Tokens of the plain CLIP, a row per clip."""
    import torch

    base = json.loads(base_key)
    with torch.inference_mode():
        norm = open_base(base).vision_model.post_layernorm
        return norm(features(base, split, base["layers"])).clone()
