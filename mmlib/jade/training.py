"""Training of generator and filter through `mmlib.models.fit.fit`, and the filter's accuracy by type."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.jade import batches, language
from mmlib.jade.align import align
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
GENTLE = 0.7  # of the rates, while existence is learned
FILTER_SHAPE = Shape(region=False, places=False)


def train_generator(
    clip: CLIPModel, maker: Maker, scenes: list[Scene], images: np.ndarray, settings: Settings, seed: int,
    scratch: Path | None = None,
) -> tuple[Jade, list[dict[str, float]]]:  # fmt: skip
    """A generator of the three tasks, and its learning curve.

    Args:
        settings: `align_steps`, `learning_rate`, `muon_learning_rate`, and those of `batches.generator_collate`.
    """
    model = Jade(clip, len(maker.words), maker.words.pad, maker.shape, seed)
    align(model, maker.words, scenes, frozen_features(model, images), settings["align_steps"], seed)
    collate = batches.generator_collate(maker, scenes, images, settings, seed)
    return model, fit_lessons(model, collate, "generator", settings, seed, scratch, free=True)


def train_filter(
    clip: CLIPModel, maker: Maker, scenes: list[Scene], images: np.ndarray, settings: Settings, seed: int,
    scratch: Path | None = None, start: Jade | None = None,
) -> tuple[Jade, list[dict[str, float]]]:  # fmt: skip
    """A VQA model that knows neither box nor caption, and its learning curve.

    Args:
        settings: `align_steps`, the rates, and those of `batches.filter_collate`.
        start: a model whose weights it starts from, all but those for boxes; None: weights of its own, aligned first.
    """
    model = Jade(clip, len(maker.words), maker.words.pad, maker.shape, seed)
    features = frozen_features(model, images)
    if start is None:
        align(model, maker.words, scenes, features, settings["align_steps"], seed)
    else:
        model.load_state_dict({name: start.state_dict()[name] for name in model.state_dict()})
    collate = batches.filter_collate(maker, scenes, features, settings, seed)
    return model, fit_lessons(model, collate, "filter", settings, seed, scratch)


def fit_lessons(
    model: Jade, collate: Any, name: str, settings: Settings, seed: int, scratch: Path | None = None,
    free: bool = False,
) -> list[dict]:  # fmt: skip
    """Existence first, with a schedule of its own and gently: at the rates of the rest it was not learned.

    It is learned suddenly, after some 100 steps at nearly full rate: the schedule must not have ended by then. Of nine
    models that had 140 steps of it one knew existence at the end. A filter's number was tried on another seed.

    Args:
        free: whether the aligned projection is trained along after that. A generator, which also sees the box, then
            describes two boxes of three rightly instead of one of two; a filter was tried with it kept only.
    """
    model.train()
    model.look.vision.eval()
    first, batch, curve = settings["simple_steps"], settings["batch"], []
    for start, steps, rate in ((0, first, GENTLE), (first, settings["steps"] - first, 1.0)):
        part = partial(_shifted, collate, start * batch)
        rates = {key: rate * settings[key] for key in ("learning_rate", "muon_learning_rate")}
        model.tokens.project.requires_grad_(free and start > 0)
        if steps:
            rows = fit(model, part, name=name, steps=steps, batch=batch, **rates, seed=seed, scratch=scratch)
            curve += [{**row, "step": row["step"] + start} for row in rows]
            model.train()
    return model.eval() and curve


def _shifted(collate: Any, offset: int, items: list[int]) -> dict[str, Any]:
    return collate([item + offset for item in items])


def frozen_features(model: Jade, images: np.ndarray, batch: int = 256) -> Tensor:
    """Tokens of the frozen CLIP without a box: (pictures, N + 1, 2 W)."""
    import torch

    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            parts.append(model.look(model.look.patches(pixels(images[start : start + batch]))))
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
