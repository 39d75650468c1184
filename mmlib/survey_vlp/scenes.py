"""Scenes of up to four things in four cells, as emoji or handwritten digits, and texts about them with known truth.

`things` (N, 4, 2) holds noun and colour of every cell, -1 where it is empty; all texts are derived from it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from mmlib.world.nouns import COLOURS as INKS
from mmlib.world.nouns import FLAT
from mmlib.world.render import Renderer
from mmlib.world.scenes import Placed, Scene

NAMES = ("dog", "duck", "crab", "owl", "whale", "fox", "pig", "bear", "swan", "turtle")
COLOURS = tuple(INKS)[:6]
CELLS = ("northwest", "northeast", "southwest", "southeast")
NUMBERS = ("zero", "one", "two", "three", "four")
PAD, CLS, MASK, END = range(4)
PIECES = tuple(f"##{name}" for name in NAMES)  # a noun may be written as two tokens, as subword vocabularies do
WORDS = ("<pad>", "<cls>", "<mask>", "<end>", *COLOURS, *NAMES, *CELLS, *NUMBERS, "none", "one_of", "both", *PIECES,
         "a", "and", "on", "in", "the", "how_many", "what_color", "where", "is_there", "yes", "no")  # fmt: skip
ID = {word: number for number, word in enumerate(WORDS)}
SIDE = 24  # pixels of a picture, cells of 12
DIGITS = "data/digits/digits.csv.gz"  # as dvc.yaml names it
KINDS = ("color", "count")


def draw(count: int, objects: tuple[int, int], seed: int, *, distinct: bool = False) -> np.ndarray:
    """(N, 4, 2) scenes; `distinct`: nouns and colours all differ, else nouns are of two kinds, so that they repeat."""
    rng = np.random.default_rng(seed)
    nouns = rng.random((count, len(NAMES))).argsort(1)[:, :4]
    colours = rng.random((count, len(COLOURS))).argsort(1)[:, :4]
    if not distinct:
        nouns = np.take_along_axis(nouns, rng.integers(2, size=(count, 4)), 1)
        colours = rng.integers(len(COLOURS), size=(count, 4))
    things = np.stack([nouns, colours], -1)
    things[rng.random((count, 4)).argsort(1) >= rng.integers(objects[0], objects[1] + 1, count)[:, None]] = -1
    return things


@functools.cache
def _renderer(data: Path) -> Renderer:
    return Renderer(data)


@functools.cache
def _digits(data: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.loadtxt(data.parent / DIGITS, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1].astype(int)


def render(things: np.ndarray, data: Path, seed: int, *, world: str = "emoji", test: bool = False) -> np.ndarray:
    """float32 (N, 24, 24, 3) in -1 … 1; digits of tests are other people's than those of training."""
    rng = np.random.default_rng(seed)
    if world == "emoji":
        shifts, grounds = rng.integers(-1, 2, (*things.shape[:2], 2)), rng.integers(len(FLAT), size=len(things))
        scenes = [
            Scene("", tuple(Placed(NAMES[n], COLOURS[c], "large", i // 2 * 3 + i % 2, tuple(shift[i]))
                            for i, (n, c) in enumerate(row) if n >= 0), None, tuple(FLAT)[ground], (0, 0))
            for row, shift, ground in zip(things.tolist(), shifts.tolist(), grounds.tolist(), strict=True)
        ]  # fmt: skip
        large = _renderer(data).render_all(scenes)[:, : 2 * SIDE, : 2 * SIDE].astype(np.float32)
        return large.reshape(len(things), SIDE, 2, SIDE, 2, 3).mean((2, 4)) / 127.5 - 1
    images, labels = _digits(data)
    known = np.arange(len(labels)) >= 1200 if test else np.arange(len(labels)) < 1200
    pools, ink = [np.flatnonzero(known & (labels == digit)) for digit in range(10)], np.array(list(INKS.values())) / 255
    canvas = np.zeros((len(things), SIDE, SIDE, 3), np.float32)
    for number, cell in np.argwhere(things[..., 0] >= 0):
        noun, colour = things[number, cell]
        y, x = np.array([cell // 2, cell % 2]) * 12 + rng.integers(1, 4, 2)
        canvas[number, y : y + 8, x : x + 8] = images[rng.choice(pools[noun])][..., None] * ink[colour]
    return canvas * 2 - 1


def tiles(pixels: np.ndarray, side: int) -> np.ndarray:
    """(N, (24/side)², side·side·3) square patches row by row: side 12 is a token per cell, side 6 four per cell."""
    n, k = len(pixels), SIDE // side
    return pixels.reshape(n, k, side, k, side, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, k * k, -1)


# ---- language --------------------------------------------------------------------------------------------------------


def encode(texts: list[str], length: int) -> np.ndarray:
    """(N, length) ids: `<cls>`, the words, padding."""
    rows = np.full((len(texts), length), PAD)
    for row, text in zip(rows, texts, strict=True):
        ids = [CLS, *(ID[word] for word in text.split())]
        row[: len(ids)] = ids
    return rows


def captions(things: np.ndarray, seed: int, *, swap: bool = False, places: bool = False, pieces: bool = False) -> list:
    """One text per scene in a drawn order and wording; `swap` exchanges the colours of two things and nothing else."""
    rng = np.random.default_rng(seed)
    texts = []
    for row in things:
        cells = rng.permutation(np.flatnonzero(row[:, 0] >= 0))
        colours = row[cells, 1][::-1] if swap else row[cells, 1]
        named = [f"{NAMES[n]} {PIECES[n]}" if pieces else NAMES[n] for n in row[cells, 0]]
        pattern = "a {c} {n} in the {w}" if places else ("{c} {n}", "{n} on {c}")[rng.integers(2)]
        phrases = [pattern.format(n=n, c=COLOURS[c], w=CELLS[w]) for n, c, w in zip(named, colours, cells, strict=True)]
        texts.append(" and ".join(phrases))
    return texts


def questions(things: np.ndarray, kind: str, seed: int) -> tuple[list[str], np.ndarray]:
    """(texts, ids of the answers' words): a question of a kind, `color` or `count`, about every scene."""
    rng, texts, answers = np.random.default_rng(seed), [], []
    for row in things:
        nouns, colours = row[row[:, 0] >= 0].T
        single = [i for i, n in enumerate(nouns) if (nouns == n).sum() == 1]
        i = int(rng.choice(single or range(len(nouns))))
        text, answer = f"what_color {NAMES[nouns[i]]}", COLOURS[colours[i]]
        if kind == "count":
            noun = rng.choice(np.unique(nouns)) if rng.random() < 0.8 else rng.integers(len(NAMES))
            text, answer = f"how_many {NAMES[noun]}", NUMBERS[(nouns == noun).sum()]
        texts.append(text)
        answers.append(ID[answer])
    return texts, np.array(answers)
