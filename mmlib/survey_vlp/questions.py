"""Scenes of several things as tensors, and answers about them: what V1, V3, V4, V5 and V8 share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib import store
from mmlib.models.fusion_encoder import Encoder
from mmlib.survey_vlp import scenes

LENGTH = 12  # tokens of the longest caption, `<cls> dog on red and …` of three things
HELD_OUT, VALIDATION = 30_000, 20_000  # seeds of the scenes of tests, and of those for choosing

COLOR, HUES = scenes.ID[scenes.COLOURS[0]], len(scenes.COLOURS)  # ids of colors and nouns are in rows
NOUN, NAMES = scenes.ID[scenes.NAMES[0]], len(scenes.NAMES)


@functools.lru_cache(maxsize=8)
def pool(count: int, seed: int, *, world: str = "emoji", repeat: bool = False, part: str = "train",
         versions: int = 1) -> dict[str, Tensor]:  # fmt: skip
    """Scenes of three things that all differ, or of one to four that may `repeat`; K = kinds of questions.

    Args:
        versions: how often every scene is there, with its colors moved on from thing to thing: who knows only which
            things and which colors there are cannot tell the versions apart. Then no two scenes have both the same
            things and the same colors, so that a caption is true of one picture only.
    Returns:
        pixels (N, 24, 24, 3), captions text (N, 12), things (N, 4, 2), questions ids (K, N, 3), answers (K, N).
    """
    drawn = count if versions == 1 else 2 * count
    things = scenes.draw(drawn, (1, 4) if repeat else (3, 3), seed, distinct=not repeat)
    if versions > 1:
        things = unlike(things)[: count // versions]
    things = np.concatenate([moved(things, by) for by in range(versions)])
    asked = [scenes.questions(things, kind, seed + k) for k, kind in enumerate(scenes.KINDS)]
    made: dict[str, Any] = {
        "pixels": scenes.render(things, store.project_root() / "data", seed, world=world, part=part),
        "things": things, "ids": np.stack([scenes.encode(texts, 3) for texts, _ in asked]),
        "answers": np.stack([answers for _, answers in asked]),
    }  # fmt: skip
    if not repeat:
        made["text"] = scenes.encode(scenes.captions(things, seed), LENGTH)
    return {name: torch.from_numpy(values) for name, values in made.items()}


def unlike(things: np.ndarray) -> np.ndarray:
    """The first of all scenes that have the same things and the same colors, in order."""
    keys = np.sort(things, 1).reshape(len(things), -1)  # nouns sorted, and colors sorted
    return things[np.sort(np.unique(keys, axis=0, return_index=True)[1])]


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


def color_logits(model: Encoder, ids: Tensor, image: Tensor) -> Tensor:
    """(B, 6) of the colors."""
    return answer(model, ids, image)[:, COLOR : COLOR + HUES]


def judged(logits: Tensor, answers: Tensor, name: str) -> dict[str, list[float]]:
    """Per question whether the answer is right, and its nats, which tell two perfect runs apart."""
    return {name: (logits.argmax(1) == answers).float().tolist(),
            f"{name}_nats": functional.cross_entropy(logits, answers, reduction="none").tolist()}  # fmt: skip


# ---- statements about two pictures (NLVR2) ---------------------------------------------------------------------------

# (quantifier, is it true) -> which of the two pictures show the named thing in the named color
PICTURES = {
    ("both", True): [(1, 1)], ("both", False): [(0, 1), (1, 0), (0, 0)],
    ("one", True): [(0, 1), (1, 0)], ("one", False): [(0, 0), (1, 1)],
    ("none", True): [(0, 0)], ("none", False): [(0, 1), (1, 0), (1, 1)],
}  # fmt: skip
QUANTIFIERS = ("both", "one", "none")


@functools.lru_cache(maxsize=8)
def statements(count: int, seed: int, *, world: str = "emoji", part: str = "train") -> dict[str, Tensor]:
    """`both | one | none` of two pictures show a red dog: three things each, the dog and red are always there.

    Where it is no red dog, the same colors are moved on among the same things, and true and false statements are
    equally many for each quantifier: without binding nothing is better than a coin.

    Returns:
        image (N, 2, 4, 432), ids (N, 3) of `what_color dog`, color (N,) as a number, quantifier (N,), true (N,), and
        things (N, 2, 4, 2).
    """
    rng = np.random.default_rng(seed)
    left, right = (scenes.draw(count, (3, 3), seed + k, distinct=True) for k in range(2))
    named = np.zeros((count, 2), int)
    quantifier, true = rng.integers(3, size=count), rng.integers(2, size=count)
    for row, (one, other) in enumerate(zip(left, right, strict=True)):
        named[row], there = (scene[rng.choice(np.flatnonzero(scene[:, 0] >= 0))] for scene in (one, other))
        for k, (wanted, found) in enumerate(
            zip(named[row], there.copy(), strict=True)
        ):  # exchange two names throughout
            was = other[:, k].copy()
            other[was == wanted, k], other[was == found, k] = found, wanted
        choices = PICTURES[QUANTIFIERS[quantifier[row]], bool(true[row])]
        for scene, shows in zip((one, other), choices[rng.integers(len(choices))], strict=True):
            scene[:] = scene if shows else moved(scene[None], int(rng.integers(1, 3)))[0]
    data = store.project_root() / "data"
    image = [
        scenes.tiles(scenes.render(s, data, seed + k, world=world, part=part), 12) for k, s in enumerate((left, right))
    ]
    texts = [f"what_color {scenes.NAMES[noun]}" for noun, _ in named]
    made = {"image": np.stack(image, 1), "ids": scenes.encode(texts, 3), "color": named[:, 1], "quantifier": quantifier,
            "true": true, "things": np.stack([left, right], 1)}  # fmt: skip
    return {name: torch.from_numpy(values) for name, values in made.items()}


def compare(logits: Callable, settings: dict[str, Any], world: str = "emoji") -> dict[str, list[float]]:
    """`judge_statements` for `logits`, on scenes of their own for fitting and for the test."""
    known = statements(settings["scenes"] // 2, VALIDATION, world=world)
    new = statements(settings["test_scenes"], HELD_OUT, world=world, part="test")
    return judge_statements(logits, known, new, 0)


def judge_statements(logits: Callable[[Tensor, Tensor], Tensor], train: dict[str, Tensor], test: dict[str, Tensor],
                     seed: int) -> dict[str, list[float]]:  # fmt: skip
    """Whether statements are judged rightly by what a frozen model says about either picture: NLVR2 as a probe.

    Args:
        logits: of the color of the thing in question, (ids (B, 3), image (B, 4, 432)) -> (B, 6). The probability of
            the named color in either picture and the quantifier go into a small network, fitted on `train`; the ViLT
            paper probes CLIP in this way (its section 2).
    """

    def features(data: dict[str, Tensor]) -> Tensor:  # (N, 5)
        with torch.inference_mode():
            said = [logits(data["ids"], data["image"][:, k]).softmax(1) for k in range(2)]
        shown = [each.gather(1, data["color"][:, None]) for each in said]
        return torch.cat([*shown, functional.one_hot(data["quantifier"], 3).float()], 1).clone()

    torch.manual_seed(seed)
    probe = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer, x = torch.optim.Adam(probe.parameters(), 0.02), features(train)
    for _ in range(400):
        optimizer.zero_grad()
        functional.cross_entropy(probe(x), train["true"]).backward()
        optimizer.step()
    with torch.inference_mode():
        return judged(probe(features(test)), test["true"], "statement")
