"""What all arms and seeds share: clips, a CLIP of single frames, a multimodal encoder that reads frames, features.

Results of shards are JSON, so weights travel as base64 of a safetensors file.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.vlab import language
from mmlib.vlab.data import clips

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import CLIPModel, PreTrainedTokenizerBase

    from mmlib.vlab.data import Pairs
    from mmlib.vlab.model import Vlab

Settings = dict[str, Any]
PATCH = 18


@cache
def tokenizer(nouns: int) -> PreTrainedTokenizerBase:
    """The study's words."""
    return language.build_tokenizer(nouns)


def drawn(base: Settings, split: str, count: int | None = None) -> tuple[Pairs, np.ndarray]:
    """Clips of a split with their pixels. base: `clips`, `test_clips`, `nouns`, `kinds` (of motion)."""
    count = count or (base["clips"] if split == "train" else base["test_clips"])
    return clips(split, count, base["nouns"], tuple(base["kinds"]))


def new_clip(base: Settings, seed: int) -> CLIPModel:
    """An untrained CLIP of the study's size."""
    from mmlib.vlab.clip_base import build_clip

    return build_clip(tokenizer(base["nouns"]), base["width"], base["layers"], PATCH, seed)


def train_base(shard: dict[str, Any]) -> dict[str, Any]:
    """CLIP, and a reader on top of it: learning curves, what they know of unseen frames, weights as base64."""
    import torch

    from mmlib.vlab import clip_base
    from mmlib.vlab.model import reader_state

    torch.set_num_threads(1)
    base, settings, seed = shard["base"], shard["settings"], shard["base"]["clip_seed"]
    stills = drawn(base, "stills", settings["stills"])
    model, words = new_clip(base, seed), tokenizer(base["nouns"])
    scratch = store.project_root() / ".scratch" / "vlab" / f"clip-{store.digest(shard)}"
    curve = clip_base.train_clip(model, words, *stills, settings, seed, scratch)
    clip_base.meet_new_words(model, words, base["nouns"], seed)
    recall = clip_base.recall(model, words, *drawn(base, "test"))
    reader, read_curve = train_reader(
        model, stills, settings["reader"], base, seed, scratch.with_name(f"{scratch.name}-reader")
    )
    read = read_frames(reader, model, base, settings["reader"]["answer_share"])
    weights = {"clip": as_text(model.state_dict()), "reader": as_text(reader_state(reader))}
    return {"seed": seed, "recall": recall, "read": read, "curve": curve, "read_curve": read_curve, "weights": weights}


def train_reader(
    clip: CLIPModel, stills: tuple[Pairs, np.ndarray], settings: Settings, base: Settings, seed: int, scratch: Path
) -> tuple[Vlab, list[dict[str, float]]]:
    """A model whose multimodal encoder learned to read single frames, and its learning curve."""
    from mmlib.vlab import clip_base, training
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import RATIOS, Arm, Vlab

    words, (pairs, images) = tokenizer(base["nouns"]), stills
    model = Vlab(clip, Arm(), words.pad_token_id, seed)
    options = {"ratios": RATIOS, "name": "reader", **settings}
    sequences, tokens = Sequences(words, settings["answer_share"]), clip_base.image_tokens(clip, images)
    return model, training.learn_to_read(model, sequences, pairs, tokens, options, seed, scratch)


def read_frames(reader: Vlab, clip: CLIPModel, base: Settings, answer_share: float) -> dict[str, float]:
    """Share of right answers on one frame of each unseen clip, by question."""
    from statistics import fmean

    from mmlib.vlab import clip_base, tasks
    from mmlib.vlab.batches import Sequences

    pairs, images = drawn(base, "test")
    middle = clip_base.image_tokens(clip, images)[:, images.shape[1] // 2, None]  # (clips, 1, N + 1, D)
    asked = [row for row in tasks.questions(pairs, "static") if row[0] % 2 == 0]
    sequences = Sequences(tokenizer(base["nouns"]), answer_share)
    said = tasks.answers(reader, sequences, lambda items: {"video": middle[[item // 2 for item in items]]}, asked)
    right = list(zip((row[1] for row in asked), tasks.right(said, asked), strict=True))
    names = sorted({name for name, _ in right})
    return {name: round(fmean(value for other, value in right if other == name), 6) for name in names}


def as_text(state: dict[str, Tensor]) -> str:
    """Weights as base64 of a safetensors file: what a shard's JSON can hold."""
    from safetensors.torch import save

    return base64.b64encode(save({name: value.contiguous() for name, value in state.items()})).decode()


def write_weights(results: list[dict[str, Any]], folder: Path) -> None:
    """Store `weights` (name -> base64) of each result as `name-seed0.safetensors`, and drop them from the results."""
    for result in results:
        for name, text in result.pop("weights", {}).items():
            store.atomic_write(folder / f"{name}-seed{result['seed']}.safetensors", base64.b64decode(text))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights from a safetensors file."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} is missing", "run the stage that makes it: `dvc repro vlab-clip vlab-adapting`")
    return load_file(path)


def load_weights(model: Any, path: Path) -> Any:
    """`model` with stored weights, in eval mode.

    Raises:
        UserError: the file is missing or holds another model.
    """
    weights = read_weights(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path} holds another model", "delete results/vlab and run the stages again") from error
    return model.eval()


@cache
def base_clip(folder: str, seed: int, key: str) -> CLIPModel:
    """The stored CLIP of a seed; `key`: settings of its stage as JSON."""
    return load_weights(new_clip(json.loads(key), seed), Path(folder) / f"clip-seed{seed}.safetensors")


def open_base(base: Settings) -> CLIPModel:
    """The CLIP that stage `vlab-clip` trained; every seed of an arm starts from it."""
    folder = str(store.project_root() / "results/vlab/clip")
    return base_clip(folder, base["clip_seed"], json.dumps(base, sort_keys=True))


@cache
def lower(base_key: str, split: str, start: int) -> Tensor:
    """Features of a split below block `start` (the number of blocks: the plain image encoder's tokens)."""
    from mmlib.vlab import clip_base

    base = json.loads(base_key)
    model, (_, images) = open_base(base), drawn(base, split)
    return clip_base.lower_features(model, images, start)


def features(base: Settings, split: str, start: int) -> Tensor:
    """As `lower`, with settings as a dictionary."""
    return lower(json.dumps(base, sort_keys=True), split, start)
