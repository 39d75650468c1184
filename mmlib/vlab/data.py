"""Clips for training, validation and test. A thing, a ground and a motion that are tested never met in training.

The world draws clips; things are restricted to the first nouns of its table, so that a small CLIP can know them all.
The numbers of thing, ground and motion, summed modulo seven, decide the split: every two of the three are trained
on, but sums with residue 0 only ever appear in tests and those with residue 1 in validation. (Pairs of thing and ground
alone must not be held out: a small model then tells a thing by the grounds that it is never on. Pilot: features named
one thing of nine on held-out grounds, eight of ten on the others.) Single frames for CLIP, `stills`, are of all.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from mmlib import store
from mmlib.errors import UserError
from mmlib.world.clips import ANSWERS, Clip, draw_clips, partner, render_clip
from mmlib.world.nouns import BACKGROUNDS, load_nouns
from mmlib.world.render import Renderer

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SPLITS = ("train", "validation", "test", "stills")
RESIDUES = {"test": (0,), "validation": (1,), "train": (2, 3, 4, 5, 6), "stills": tuple(range(7))}
MODULUS = 7
MOTIONS = tuple(ANSWERS)


@dataclass(frozen=True)
class Pairs:
    """Clips whose partners (frames reversed) are not drawn but flipped: item 2i is clip i, item 2i + 1 its partner."""

    clips: list[Clip]

    def __len__(self) -> int:
        return 2 * len(self.clips)

    def __getitem__(self, item: int) -> Clip:
        return partner(self.clips[item // 2]) if item % 2 else self.clips[item // 2]


def draw_pairs(split: str, count: int, nouns: int, seed: int, kinds: tuple[str, ...] = tuple(ANSWERS)) -> Pairs:
    """`count` clips of a split (with partners: twice as many), motions in turn.

    Args:
        nouns: things are the first so many nouns of the world.
        kinds: motions, keys of the world's `ANSWERS`.
    Raises:
        UserError: unknown split or motion, or fewer nouns than the held-out combinations need.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split `{split}`", f"choose from: {', '.join(SPLITS)}")
    if not MODULUS <= nouns <= len(load_nouns()):
        raise UserError(f"{nouns} nouns", f"choose {MODULUS} to {len(load_nouns())}")
    names = [noun.noun for noun in load_nouns()]
    number = {name: i for i, name in enumerate(names)}
    found: list[Clip] = []
    wanted = {kind: count // len(kinds) + (i < count % len(kinds)) for i, kind in enumerate(kinds)}
    for clip in draw_clips(20 * count + 600, SPLITS.index(split) + len(SPLITS) * seed, kinds):
        first, second = number[clip.first] % nouns, number[clip.second] % nouns
        fits = (first + BACKGROUNDS.index(clip.background) + MOTIONS.index(clip.kind)) % MODULUS in RESIDUES[split]
        if fits and first != second and wanted[clip.kind]:
            wanted[clip.kind] -= 1
            found.append(replace(clip, first=names[first], second=names[second]))
    if len(found) < count:
        raise UserError(f"only {len(found)} of {count} {split} clips", "ask for fewer")
    return Pairs(found)


def render_pairs(renderer: Renderer, pairs: Pairs) -> np.ndarray:
    """uint8 (clips, 8, 72, 72, 3); partners are its flips along axis 1."""
    import numpy as np

    return np.stack([render_clip(renderer, clip) for clip in pairs.clips])


@cache
def clips(split: str, count: int, nouns: int, kinds: tuple[str, ...] = MOTIONS) -> tuple[Pairs, np.ndarray]:
    """Pairs and their pixels; the same for all seeds. Kept: drawing them takes as long as a short training."""
    pairs = draw_pairs(split, count, nouns, 0, kinds)
    return pairs, render_pairs(Renderer(store.project_root() / "data"), pairs)


def take(features: Tensor, items: list[int], order: str = "forward", frames: int | None = None) -> Tensor:
    """Features (clips, T, N, D) of items of a `Pairs`: partners are flipped in time.

    Args:
        order: `forward`; `reversed` or `shuffled` frames are what a model is probed with, of those that it sees.
        frames: how many (None: all).
    """
    import torch

    rows = features[[item // 2 for item in items]]
    flip = torch.tensor([item % 2 for item in items], dtype=torch.bool)
    rows = torch.where(flip.view(-1, 1, 1, 1), rows.flip(1), rows)
    if frames:
        rows = _pick(rows, torch.tensor(middles(items, frames, rows.shape[1])))
    if order == "reversed":
        rows = rows.flip(1)
    elif order == "shuffled":
        generator = torch.Generator().manual_seed(0)
        where = torch.stack([torch.randperm(rows.shape[1], generator=generator) for _ in items])
        rows = _pick(rows, where)
    elif order != "forward":
        raise UserError(f"unknown order of frames `{order}`", "choose forward, reversed or shuffled")
    return rows


def middles(items: list[int], count: int, available: int) -> list[list[int]]:
    """Numbers of `count` frames for each item: the middle ones of equal segments.

    A segment of even length has two middle frames; one is drawn for each item, the same in all segments. With always
    the later one, a clip would show other pictures than its reversal does, and who is blind to order could tell them.

    Raises:
        UserError: segments would not be equal.
    """
    if count < 1 or available % count:
        raise UserError(f"{count} of {available} frames", "choose a number that divides the frames of a clip")
    length, draw = available // count, random.Random(f"middle/{items}")
    first = [(length - 1) // 2 + (draw.randrange(2) if length % 2 == 0 else 0) for _ in items]
    return [[*range(number, available, length)] for number in first]


def _pick(rows: Tensor, numbers: Tensor) -> Tensor:
    """Frames `numbers` (B, t) of rows (B, T, N, D)."""
    import torch

    return torch.gather(rows, 1, numbers[:, :, None, None].expand(-1, -1, *rows.shape[2:]))
