"""Clips: eight frames in which something moves, with an exact time-reversed partner for every one.

Whoever ignores the order of frames cannot tell a clip from its partner: both have the same multiset of frames, and
opposite answers. So such a model is right in exactly one half of every pair, whatever it looks at. Motion is on a
torus (what leaves on the right comes back on the left) or cyclic, and starts at a random phase, so that no single
frame gives the direction away either.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.world.nouns import BACKGROUNDS, load_nouns
from mmlib.world.render import Renderer, over
from mmlib.world.scenes import SIDE

if TYPE_CHECKING:
    import numpy as np

FRAMES = 8
STEP = SIDE // FRAMES  # pixels a frame: once around in eight
SPRITE = 24
GROWTH = tuple(range(10, 10 + 4 * FRAMES, 4))  # pixels
GAPS = tuple(range(2, 2 + 3 * FRAMES, 3))  # pixels from the middle to each of two things: never across the border
# Answer by kind of motion: a pair of opposites each, and the direction of time that belongs to it.
ANSWERS = {
    "across": ("right", "left"),
    "along": ("down", "up"),
    "turn": ("clockwise", "counterclockwise"),
    "size": ("grows", "shrinks"),
    "order": ("before", "after"),
    "distance": ("leave", "approach"),
}


@dataclass(frozen=True)
class Clip:
    """A clip: `first` (and `second`, for order and distance) on a ground, and what happens.

    Attributes:
        answer: one of the two of `ANSWERS[kind]`.
        phase: where the cycle starts; for `order` the frame in which `first` is seen, `other` that of `second`.
        lane: the coordinate that does not change, in pixels.
    """

    kind: str
    answer: str
    first: str
    second: str
    phase: int
    other: int
    lane: int
    background: str
    view: tuple[int, int]


def draw_clips(count: int, seed: int, kinds: tuple[str, ...] = tuple(ANSWERS)) -> list[Clip]:
    """`count` clips; every kind and, within it, every answer comes equally often (up to one)."""
    if unknown := set(kinds) - set(ANSWERS):
        raise UserError(f"unknown motion `{min(unknown)}`", f"choose from: {', '.join(ANSWERS)}")
    draw = random.Random(f"clips/{seed}/{kinds}")
    return [_draw(draw, kinds[i % len(kinds)], i // len(kinds) % 2) for i in range(count)]


def _draw(draw: random.Random, kind: str, side: int) -> Clip:
    names = [noun.noun for noun in load_nouns()]
    first, second = draw.sample(names, 2)
    period = SIDE if kind in ("across", "along") else FRAMES
    phase, other = draw.randrange(period), 0
    if kind == "order":
        phase, other = sorted(draw.sample(range(FRAMES), 2), reverse=bool(side))
    return Clip(kind, ANSWERS[kind][side], first, second, phase, other, draw.randrange(SIDE),
                draw.choice(BACKGROUNDS), (draw.randrange(256), draw.randrange(256)))  # fmt: skip


def partner(clip: Clip) -> Clip:
    """The clip whose frames are these in reverse; `draw_clips` would draw it with the same probability."""
    forward, backward = ANSWERS[clip.kind]
    answer = backward if clip.answer == forward else forward
    sign = 1 if clip.answer == forward else -1
    last = FRAMES - 1
    if clip.kind in ("across", "along"):
        return replace(clip, answer=answer, phase=(clip.phase + sign * STEP * last) % SIDE)
    if clip.kind in ("turn", "size"):
        return replace(clip, answer=answer, phase=(clip.phase + sign * last) % FRAMES)
    if clip.kind == "order":
        return replace(clip, answer=answer, phase=last - clip.phase, other=last - clip.other)
    return replace(clip, answer=answer)


def render_clip(renderer: Renderer, clip: Clip) -> np.ndarray:
    """uint8 (8, 72, 72, 3)."""
    import numpy as np

    return np.stack([_frame(renderer, clip, t) for t in range(FRAMES)])


def _frame(renderer: Renderer, clip: Clip, t: int) -> np.ndarray:
    canvas = renderer.ground(clip.background, clip.view)
    sign = 1 if clip.answer == ANSWERS[clip.kind][0] else -1
    for noun, pixels, turn, x, y in _sprites(clip, t, sign):
        _put(canvas, renderer.sprite(noun, pixels, turn), x, y)
    return canvas


def _sprites(clip: Clip, t: int, sign: int) -> list[tuple[str, int, int, int, int]]:
    """(noun, pixels, eighths of a turn, x, y of the middle) of what is seen in frame t."""
    middle, moved = SIDE // 2, (clip.phase + sign * STEP * t) % SIDE
    cycle = (clip.phase + sign * t) % FRAMES
    if clip.kind == "across":
        return [(clip.first, SPRITE, 0, moved, clip.lane)]
    if clip.kind == "along":
        return [(clip.first, SPRITE, 0, clip.lane, moved)]
    if clip.kind == "turn":
        return [(clip.first, SPRITE, cycle, middle, clip.lane)]
    if clip.kind == "size":
        return [(clip.first, GROWTH[cycle], 0, middle, clip.lane)]
    if clip.kind == "order":
        seen = ((clip.first, clip.phase), (clip.second, clip.other))
        return [(noun, SPRITE, 0, middle, clip.lane) for noun, when in seen if when == t]
    gap = GAPS[t if sign > 0 else FRAMES - 1 - t]
    return [(clip.first, SPRITE, 0, middle - gap, clip.lane), (clip.second, SPRITE, 0, middle + gap, clip.lane)]


def _put(canvas: np.ndarray, sprite: np.ndarray, x: int, y: int) -> None:
    """Composite a sprite with its middle at (x, y) on the torus."""
    import numpy as np

    half = sprite.shape[0] // 2
    rows = np.arange(y - half, y - half + sprite.shape[0]) % SIDE
    columns = np.arange(x - half, x - half + sprite.shape[0]) % SIDE
    patch = canvas[np.ix_(rows, columns)]
    over(patch, sprite)
    canvas[np.ix_(rows, columns)] = patch
