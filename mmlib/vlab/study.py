"""What one shard of the study computes: a CLIP, an arm of stage 1, an arm of stage 2, each from one seed.

All arms of a comparison get the same clips, steps, batches and questions; a learning rate is chosen for each kind of
arm by its answers on validation clips, on a seed that is not reported.
"""

from __future__ import annotations

import base64
import dataclasses
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.vlab import language
from mmlib.vlab.data import Pairs, draw_pairs, render_pairs
from mmlib.world.render import Renderer

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import CLIPModel, PreTrainedTokenizerBase

    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import Arm, Vlab

Settings = dict[str, Any]
PATCH = 18


def arms(blocks: list[int]) -> dict[str, Arm]:
    """Stage-1 variants by name. `b0` and `b1` are provably blind to order; `b2` is the one to beat."""
    from mmlib.vlab.model import Arm

    where = tuple(blocks)
    adapted = {name: Arm(name, where) for name in ("mlp", "tconv", "st3d", "tattn", "aim")}
    return {
        "b0": Arm(pool=True, frame_embedding=False),
        "b1": Arm(frame_embedding=False),
        "b2": Arm(),
        **adapted,
        "b2-tuned": Arm(freeze="clip_small_lr"),
        "tconv-small-lr": Arm("tconv", where, freeze="clip_small_lr"),
        "tconv-unfrozen": Arm("tconv", where, freeze="none"),
        "tconv-before-mlp": Arm("tconv", where, position="mlp"),
        "tconv-both": Arm("tconv", where, position="both"),
    }


@cache
def clips(split: str, count: int, nouns: int) -> tuple[Pairs, np.ndarray]:
    """Pairs and their pixels; the same for all seeds. Kept: drawing them takes as long as a short training."""
    pairs = draw_pairs(split, count, nouns, 0)
    return pairs, render_pairs(Renderer(store.project_root() / "data"), pairs)


@cache
def tokenizer(nouns: int) -> PreTrainedTokenizerBase:
    """The study's words."""
    return language.build_tokenizer(nouns)


def new_clip(base: Settings, seed: int) -> CLIPModel:
    """An untrained CLIP of the study's size."""
    from mmlib.vlab.clip_base import build_clip

    return build_clip(tokenizer(base["nouns"]), base["width"], base["layers"], PATCH, seed)


def train_base(shard: dict[str, Any]) -> dict[str, Any]:
    """One CLIP: learning curve, recall on things and grounds of unseen clips, weights as base64 of safetensors."""
    import torch
    from safetensors.torch import save

    from mmlib.vlab import clip_base

    torch.set_num_threads(1)
    base, settings, seed = shard["base"], shard["settings"], shard["seed"]
    pairs, images = clips("train", base["clips"], base["nouns"])
    model, words = new_clip(base, seed), tokenizer(base["nouns"])
    scratch = store.project_root() / ".scratch" / "vlab" / f"clip-{store.digest(shard)}"
    curve = clip_base.train_clip(model, words, pairs, images, settings, seed, scratch)
    clip_base.meet_new_words(model, words, base["nouns"], seed)
    test, test_images = clips("test", base["test_clips"], base["nouns"])
    return {
        "seed": seed, "curve": curve, "recall": clip_base.recall(model, words, test, test_images),
        "weights": base64.b64encode(save(model.state_dict())).decode(),
    }  # fmt: skip


def write_weights(results: list[dict[str, Any]], folder: Path) -> None:
    """Store each result's weights as safetensors, named by arm and seed, and drop them from the results."""
    for result in results:
        if weights := result.pop("weights", None):
            name = f"{result.get('arm', 'clip')}-seed{result['seed']}.safetensors"
            store.atomic_write(folder / name, base64.b64decode(weights))


def load_weights(model: Any, path: Path) -> Any:
    """`model` with stored weights, in eval mode.

    Raises:
        UserError: the file is missing or holds another model.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} is missing", "run the stage that makes it: `dvc repro vlab-clip vlab-adapting`")
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise UserError(f"{path} holds another model", "delete results/vlab and run the stages again") from error
    return model.eval()


@cache
def base_clip(folder: str, seed: int, key: str) -> CLIPModel:
    """The stored CLIP of a seed; `key`: settings of its stage as JSON."""
    import json

    return load_weights(new_clip(json.loads(key), seed), Path(folder) / f"clip-seed{seed}.safetensors")


def open_base(base: Settings, seed: int) -> CLIPModel:
    """The CLIP that stage `vlab-clip` trained from a seed."""
    import json

    return base_clip(str(store.project_root() / "results/vlab/clip"), seed, json.dumps(base, sort_keys=True))


@cache
def lower(base_key: str, seed: int, split: str, count: int, start: int) -> Tensor:
    """Features of a split below block `start` (the number of blocks: the plain image encoder's tokens)."""
    import json

    from mmlib.vlab import clip_base

    base = json.loads(base_key)
    model, (_, images) = open_base(base, seed), clips(split, count, base["nouns"])
    return clip_base.lower_features(model, images, start)


def features(base: Settings, seed: int, split: str, start: int) -> Tensor:
    """As `lower`, with settings as a dictionary."""
    import json

    count = base["clips"] if split == "train" else base["test_clips"]
    return lower(json.dumps(base, sort_keys=True), seed, split, count, start)


def choose_rate(results: list[dict[str, Any]]) -> dict[str, float]:
    """Arm -> the learning rate with the best mean of the three families on validation clips."""
    from statistics import fmean

    best: dict[str, tuple[float, float]] = {}
    for result in results:
        score = fmean(fmean(result["scores"][family]) for family in language.FAMILIES)
        # The lower rate of two equals: -rate.
        best[result["arm"]] = max(best.get(result["arm"], (-1.0, 0.0)), (score, -result["learning_rate"]))
    return {arm: -rate for arm, (_, rate) in best.items()}


def parse_arm(name: str, blocks: list[int], hidden: int) -> tuple[Arm, Settings]:
    """`tconv`, `tconv@T4` (frames) or `tconv@qa` (one loss alone) -> the arm and what it changes in the settings.

    Raises:
        UserError: unknown name.
    """
    from mmlib.vlab.model import RATIOS

    kind, _, option = name.partition("@")
    known = arms(blocks)
    if kind not in known or (option and option[0] != "T" and option not in RATIOS):
        raise UserError(
            f"unknown arm `{name}`", f"choose from: {', '.join(known)}, with @T1 … @T8 or @{'/@'.join(RATIOS)}"
        )
    changes: Settings = {}
    if option.startswith("T"):
        changes["frames"] = int(option[1:])
    elif option:
        changes["ratios"] = {task: ratio if task == option else 0.0 for task, ratio in RATIOS.items()}
    return dataclasses.replace(known[kind], hidden=hidden), changes


def adapt(shard: dict[str, Any]) -> dict[str, Any]:
    """Stage 1 of one arm from one seed, measured on `shard["split"]`."""
    import torch
    from safetensors.torch import save

    from mmlib.vlab import training
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import RATIOS, Vlab

    torch.set_num_threads(1)
    base, settings, seed = shard["base"], shard["settings"], shard["seed"]
    arm, changes = parse_arm(shard["arm"], settings["blocks"], settings["hidden"])
    options = {"ratios": RATIOS, **settings, **changes, "learning_rate": shard["learning_rate"], "name": shard["name"]}
    words = tokenizer(base["nouns"])
    model = Vlab(open_base(base, seed), arm, words.pad_token_id, seed)
    sequences, (pairs, _) = Sequences(words, settings["answer_share"]), clips("train", base["clips"], base["nouns"])
    scratch = store.project_root() / ".scratch" / "vlab" / f"adapt-{store.digest(shard)}"
    seen = {"lower": features(base, seed, "train", model.start)}
    curve = training.train(model, sequences, pairs, seen, options, seed, scratch)
    result = {"arm": shard["arm"], "seed": seed, "learning_rate": shard["learning_rate"], "curve": curve,
              "parameters": sum(p.numel() for p in model.parameters())}  # fmt: skip
    result |= {"scores": measure_adapted(model, sequences, base, seed, shard["split"], options.get("frames"))}
    if shard["keep"]:
        result["weights"] = base64.b64encode(save(model.state_dict())).decode()
    return result


def measure_adapted(
    model: Vlab, sequences: Sequences, base: Settings, seed: int, split: str, frames: int | None
) -> dict[str, list[float]]:
    """All scores of a stage-1 model, also with shuffled test frames."""
    from mmlib.vlab import training
    from mmlib.vlab.measures import measure

    pairs, _ = clips(split, base["test_clips"], base["nouns"])
    below = features(base, seed, split, model.start)
    see = training.seer({"video": training.encode(model, below, frames=frames)})
    shuffled = training.seer({"video": training.encode(model, below, "shuffled", frames)})
    return measure(model, sequences, pairs, see, shuffled)


def blend(shard: dict[str, Any]) -> dict[str, Any]:
    """Stage 2 of one form of blending from one seed: both encoders frozen, their tokens made once."""
    import torch

    from mmlib.vlab import training
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.measures import measure
    from mmlib.vlab.model import RATIOS, Vlab, blended

    torch.set_num_threads(1)
    base, settings, seed = shard["base"], shard["settings"], shard["seed"]
    words, clip = tokenizer(base["nouns"]), open_base(base, seed)
    arm, _ = parse_arm(shard["source"], settings["blocks"], settings["hidden"])
    path = store.project_root() / f"results/vlab/adapting/{shard['source']}-seed{seed}.safetensors"
    stage1 = load_weights(Vlab(clip, arm, words.pad_token_id, seed), path)
    model = blended(stage1, clip, shard["arm"], seed)
    tokens = {split: branch_tokens(stage1, base, seed, split, model.slots) for split in ("train", "test")}
    sequences, (pairs, _) = Sequences(words, settings["answer_share"]), clips("train", base["clips"], base["nouns"])
    options = {"ratios": RATIOS, **settings, "name": shard["name"]}
    scratch = store.project_root() / ".scratch" / "vlab" / f"blend-{store.digest(shard)}"
    curve = training.train(model, sequences, pairs, tokens["train"], options, seed, scratch)
    test, _ = clips("test", base["test_clips"], base["nouns"])
    return {
        "arm": shard["arm"], "seed": seed, "curve": curve,
        "parameters": sum(p.numel() for p in model.fusion.parameters()),
        "scores": measure(model, sequences, test, training.seer(tokens["test"])),
    }  # fmt: skip


def branch_tokens(stage1: Vlab, base: Settings, seed: int, split: str, slots: dict[str, str]) -> dict[str, Tensor]:
    """What each branch that a form of blending uses sees of a split."""
    import torch

    from mmlib.vlab import training

    found = {}
    if "video" in slots.values():
        found["video"] = training.encode(stage1, features(base, seed, split, stage1.start))
    if "image" in slots.values():
        with torch.inference_mode():
            norm = open_base(base, seed).vision_model.post_layernorm
            found["image"] = norm(features(base, seed, split, base["layers"])).clone()
    return found
