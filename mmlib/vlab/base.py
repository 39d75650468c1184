"""What all arms of a seed share: clips, a CLIP of single frames, a multimodal encoder that reads frames, features.

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
    """One CLIP and one reader on top of it: learning curves, what they know of unseen clips, weights as base64."""
    import torch

    from mmlib.vlab import clip_base

    torch.set_num_threads(1)
    base, settings, seed = shard["base"], shard["settings"], shard["seed"]
    pairs, images = drawn(base, "stills", settings["stills"])
    model, words = new_clip(base, seed), tokenizer(base["nouns"])
    scratch = store.project_root() / ".scratch" / "vlab" / f"clip-{store.digest(shard)}"
    curve = clip_base.train_clip(model, words, pairs, images, settings, seed, scratch)
    clip_base.meet_new_words(model, words, base["nouns"], seed)
    test, test_images = drawn(base, "test")
    recall = clip_base.recall(model, words, test, test_images)
    reader, read_curve = train_reader(
        model, settings["reader"], base, seed, scratch.with_name(f"{scratch.name}-reader")
    )
    weights = {"clip": as_text(model.state_dict()), "reader": as_text(reader)}
    return {"seed": seed, "recall": recall, "curve": curve, "read_curve": read_curve, "weights": weights}


def train_reader(
    clip: CLIPModel, settings: Settings, base: Settings, seed: int, scratch: Path
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Weights of a multimodal encoder that learned to read single frames, and its learning curve."""
    from mmlib.vlab import clip_base, training
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import RATIOS, Arm, Vlab, reader_state

    words, (pairs, images) = tokenizer(base["nouns"]), drawn(base, "train")
    model = Vlab(clip, Arm(), words.pad_token_id, seed)
    options = {"ratios": RATIOS, "name": "reader", **settings}
    sequences, tokens = Sequences(words, settings["answer_share"]), clip_base.image_tokens(clip, images)
    curve = training.learn_to_read(model, sequences, pairs, tokens, options, seed, scratch)
    return reader_state(model), curve


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


def open_base(base: Settings, seed: int) -> CLIPModel:
    """The CLIP that stage `vlab-clip` trained from a seed."""
    return base_clip(str(store.project_root() / "results/vlab/clip"), seed, json.dumps(base, sort_keys=True))


@cache
def lower(base_key: str, seed: int, split: str, count: int, start: int) -> Tensor:
    """Features of a split below block `start` (the number of blocks: the plain image encoder's tokens)."""
    from mmlib.vlab import clip_base

    base = json.loads(base_key)
    model, (_, images) = open_base(base, seed), drawn(base, split, count)
    return clip_base.lower_features(model, images, start)


def features(base: Settings, seed: int, split: str, start: int) -> Tensor:
    """As `lower`, with settings as a dictionary."""
    count = base["clips"] if split == "train" else base["test_clips"]
    return lower(json.dumps(base, sort_keys=True), seed, split, count, start)
