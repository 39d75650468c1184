"""Scenes of several things as tensors, and answers about them: what V1, V3, V4, V5 and V8 share."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmlib import store
from mmlib.survey_vlp import scenes
from mmlib.survey_vlp.encoder import Encoder

LENGTH = 12  # tokens of the longest caption, `<cls> dog on red and …` of three things
HELD_OUT = 30_000  # seed of the scenes of tests


@functools.lru_cache(maxsize=8)
def pool(count: int, seed: int, *, world: str = "emoji", repeat: bool = False, test: bool = False,
         versions: int = 1) -> dict[str, Tensor]:  # fmt: skip
    """Scenes of three things that all differ, or of one to four that may `repeat`; K = kinds of questions.

    Args:
        versions: how often every scene is there, with its colors moved on from thing to thing: who knows only which
            things and which colors there are cannot tell the versions apart.
    Returns:
        pixels (N, 24, 24, 3), captions text (N, 12), things (N, 4, 2), questions ids (K, N, 3), answers (K, N).
    """
    things = scenes.draw(count // versions, (1, 4) if repeat else (3, 3), seed, distinct=not repeat)
    things = np.concatenate([moved(things, by) for by in range(versions)])
    asked = [scenes.questions(things, kind, seed + k) for k, kind in enumerate(scenes.KINDS)]
    made: dict[str, Any] = {
        "pixels": scenes.render(things, store.project_root() / "data", seed, world=world, test=test),
        "things": things, "ids": np.stack([scenes.encode(texts, 3) for texts, _ in asked]),
        "answers": np.stack([answers for _, answers in asked]),
    }  # fmt: skip
    if not repeat:
        made["text"] = scenes.encode(scenes.captions(things, seed), LENGTH)
    return {name: torch.from_numpy(values) for name, values in made.items()}


def moved(things: np.ndarray, by: int) -> np.ndarray:
    """(N, 4, 2): the same things, every color `by` things further on."""
    result = things.copy()
    for row in result:
        cells = np.flatnonzero(row[:, 0] >= 0)
        row[cells, 1] = np.roll(row[cells, 1], by)
    return result


def tiles(data: dict[str, Tensor], side: int = 12) -> Tensor:
    """Visual tokens of every scene, (N, 4, 432) cells or (N, 16, 108) patches."""
    return torch.from_numpy(scenes.tiles(data["pixels"].numpy(), side))


def answer(model: Encoder, ids: Tensor, image: Tensor, seen: Tensor | None = None) -> Tensor:
    """(B, V) logits of the answer's word, read from `<cls>`."""
    return model.head("words", model(ids, image, seen)[0][:, 0])


def judged(logits: Tensor, answers: Tensor, name: str) -> dict[str, list[float]]:
    """Per question whether the answer is right, and its nats, which tell two perfect runs apart."""
    return {name: (logits.argmax(1) == answers).float().tolist(),
            f"{name}_nats": functional.cross_entropy(logits, answers, reduction="none").tolist()}  # fmt: skip
