"""Training of generator and filter through `mmlib.models.fit.fit`, and the filter's accuracy by type."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.jade import batches, language
from mmlib.jade.batches import Maker
from mmlib.jade.model import Jade, Shape
from mmlib.jade.tokens import Words
from mmlib.models.clip import pixels
from mmlib.models.fit import fit
from mmlib.world.scenes import Scene

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import CLIPModel

Settings = dict[str, Any]
FILTER_SHAPE = Shape(region=False, places=False)


def train_generator(
    clip: CLIPModel, maker: Maker, scenes: list[Scene], images: np.ndarray, settings: Settings, seed: int,
    scratch: Path | None = None,
) -> tuple[Jade, list[dict[str, float]]]:  # fmt: skip
    """A generator of the three tasks, and its learning curve.

    Args:
        settings: `steps`, `batch`, `questions`, `learning_rate`, `muon_learning_rate`.
    """
    model = Jade(clip, len(maker.words), maker.words.pad, maker.shape, seed)
    collate = batches.generator_collate(maker, scenes, images, settings, seed)
    return model, _fit(model, collate, "generator", settings, seed, scratch)


def train_filter(
    clip: CLIPModel, maker: Maker, scenes: list[Scene], images: np.ndarray, settings: Settings, seed: int,
    scratch: Path | None = None,
) -> tuple[Jade, list[dict[str, float]]]:  # fmt: skip
    """A VQA model that knows neither box nor caption, and its learning curve.

    Args:
        settings: as of the generator, and `absent`.
    """
    model = Jade(clip, len(maker.words), maker.words.pad, maker.shape, seed)
    collate = batches.filter_collate(maker, scenes, frozen_features(model, images), settings, seed)
    return model, _fit(model, collate, "filter", settings, seed, scratch)


def _fit(model: Jade, collate: Any, name: str, settings: Settings, seed: int, scratch: Path | None) -> list[dict]:
    model.train()
    model.look.vision.eval()
    return fit(model, collate, name=name, steps=settings["steps"], batch=settings["batch"],
               learning_rate=settings["learning_rate"], muon_learning_rate=settings["muon_learning_rate"], seed=seed,
               scratch=scratch)  # fmt: skip


def frozen_features(model: Jade, images: np.ndarray, batch: int = 256) -> Tensor:
    """Tokens of the frozen CLIP without a box: (pictures, N + 1, 2 W).

    Raises:
        ValueError: the model draws boxes into its pictures, so that no picture has one encoding.
    """
    import torch

    if model.shape.region:
        raise ValueError("a model with region masks has no box-free features")
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            parts.append(model.look(model.look.patches(pixels(images[start : start + batch]))).clone())
    return torch.cat(parts)


def exam(scenes: list[Scene], seed: int, per_picture: int = 2) -> list[list[language.Said]]:
    """True questions about pictures, types in turn: what a filter is examined with before it is used."""
    draw = random.Random(f"jade/exam/{seed}")
    kinds = language.TYPES
    return [
        [language.ask_type(scene, draw.choice(scene.objects), kinds[(i * per_picture + j) % len(kinds)], draw)
         for j in range(per_picture)]
        for i, scene in enumerate(scenes)
    ]  # fmt: skip


def new_maker(shape: Shape, side: int) -> Maker:
    """A maker of sequences for pictures of a side."""
    return Maker(Words(side), shape)
