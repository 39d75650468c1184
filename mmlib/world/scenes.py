"""Scenes: up to six things on coloured plates in nine cells, perhaps a sign, on a flat or photographic ground.

A scene graph is exact: the renderer draws what it says and nothing else. Which split a scene belongs to is a hash of
its graph, so no scene can be in two splits, whatever the seed. One pair (noun, colour) in ten is held out: it appears
in the split `novel` only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from mmlib.errors import UserError
from mmlib.world.nouns import BACKGROUNDS, CELLS, COLOURS, SIGNS, SIZES, load_nouns

VERSION = 1
SIDE, CELL, PLATE = 72, 24, 22  # pixels: image, cell, plate
SPLITS = ("train", "val", "test", "novel")
MAX_OBJECTS = 6
SIGN_SHARE = 0.25
THEMED_SHARE = 0.5  # of scenes whose things all belong to one place: the world's co-occurrence statistics
TRIES = 10_000


@dataclass(frozen=True)
class Placed:
    """A thing in a scene; `cell` counts row by row, `shift` moves it by -1 … 1 pixels in x and y."""

    noun: str
    colour: str
    size: str
    cell: int
    shift: tuple[int, int]

    @property
    def where(self) -> str:
        """Name of the cell."""
        return CELLS[self.cell]

    @property
    def row(self) -> int:
        """0 top, 1 middle, 2 bottom."""
        return self.cell // 3

    @property
    def column(self) -> int:
        """0 left, 1 center, 2 right."""
        return self.cell % 3

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the plate in pixels; x1 and y1 are outside."""
        return plate_box(self.cell, self.shift)


@dataclass(frozen=True)
class Sign:
    """A white board with a word of three letters."""

    word: str
    cell: int

    @property
    def where(self) -> str:
        """Name of the cell."""
        return CELLS[self.cell]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixels."""
        return plate_box(self.cell, (0, 0))


@dataclass(frozen=True)
class Scene:
    """A scene graph; `view` is the corner of the crop from a photographic ground."""

    id: str
    objects: tuple[Placed, ...]
    sign: Sign | None
    background: str
    view: tuple[int, int]

    @property
    def key(self) -> str:
        """What the scene shows, without jitter and crop: equal keys are the same scene to a reader."""
        things = sorted(f"{o.cell}:{o.noun}:{o.colour}:{o.size}" for o in self.objects)
        return "|".join([self.background, f"{self.sign.cell}:{self.sign.word}" if self.sign else "-", *things])

    def count(self, noun: str) -> int:
        """How many things of that name."""
        return sum(o.noun == noun for o in self.objects)

    def of_category(self, category: str) -> list[Placed]:
        """The things of a category."""
        kinds = {noun.noun for noun in load_nouns() if noun.category == category}
        return [o for o in self.objects if o.noun in kinds]


def plate_box(cell: int, shift: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels that a plate covers."""
    x = cell % 3 * CELL + (CELL - PLATE) // 2 + shift[0]
    y = cell // 3 * CELL + (CELL - PLATE) // 2 + shift[1]
    return x, y, x + PLATE, y + PLATE


def draw_scenes(split: str, count: int, seed: int, *, objects: tuple[int, int] = (1, MAX_OBJECTS)) -> list[Scene]:
    """`count` different scenes of a split; the first n are the same for every larger count.

    Raises:
        UserError: unknown split, or impossible numbers of objects.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split `{split}`", f"choose from: {', '.join(SPLITS)}")
    if not 1 <= objects[0] <= objects[1] <= MAX_OBJECTS:
        raise UserError(f"a scene cannot hold {objects[0]} to {objects[1]} things", f"choose within 1 to {MAX_OBJECTS}")
    draw = random.Random(f"scenes/{VERSION}/{split}/{seed}/{objects}")
    stream = _different(draw, split, objects)
    return [_named(next(stream), f"{split}{seed}-{number:06d}") for number in range(count)]


def _named(scene: Scene, name: str) -> Scene:
    return Scene(name, scene.objects, scene.sign, scene.background, scene.view)


def _different(draw: random.Random, split: str, objects: tuple[int, int]) -> Iterator[Scene]:
    seen: set[str] = set()
    failed = 0
    while failed < TRIES:
        scene = _draw(draw, split == "novel", objects)
        if split_of(scene) == split and scene.key not in seen:
            seen.add(scene.key)
            failed = 0
            yield scene
        failed += 1
    raise UserError(f"no further scene of split `{split}` after {TRIES} draws", "ask for fewer, or allow more things")


def split_of(scene: Scene) -> str:
    """The only split in which the scene may appear."""
    if any(is_held_out(o.noun, o.colour) for o in scene.objects):
        return "novel"
    bucket = _bucket(f"scene/{scene.key}")
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


@cache
def is_held_out(noun: str, colour: str) -> bool:
    """Is the pair kept away from training?"""
    return _bucket(f"pair/{noun}/{colour}") == 0


def _bucket(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 10


@cache
def frequencies() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names, and how common they are: the rarest is a sixth as common as the commonest (order drawn once)."""
    names = sorted(noun.noun for noun in load_nouns())
    random.Random("frequencies").shuffle(names)
    return tuple(names), tuple(1 / (1 + rank / 30) for rank in range(len(names)))


@cache
def _of_place(place: str) -> tuple[str, ...]:
    return tuple(noun.noun for noun in load_nouns() if noun.place == place)


@cache
def _themes() -> tuple[str, ...]:
    places = sorted({noun.place for noun in load_nouns()})
    return tuple(place for place in places if len(_of_place(place)) >= 3)


def _draw(draw: random.Random, novel: bool, objects: tuple[int, int]) -> Scene:
    count = draw.randint(*objects)
    cells = draw.sample(range(len(CELLS)), count + 1)
    names = _draw_nouns(draw, count)
    things = [_place(draw, names[i], cells[i], novel and i == 0) for i in range(count)]
    sign = Sign(draw.choice(SIGNS), cells[-1]) if draw.random() < SIGN_SHARE else None
    return Scene("", tuple(sorted(things, key=lambda o: o.cell)), sign, draw.choice(BACKGROUNDS),
                 (draw.randrange(256), draw.randrange(256)))  # fmt: skip


def _draw_nouns(draw: random.Random, count: int) -> list[str]:
    if draw.random() < THEMED_SHARE:
        names = draw.choices(_of_place(draw.choice(_themes())), k=count)
    else:
        names = draw.choices(*frequencies(), k=count)
    if count > 1 and draw.random() < 0.4:  # several of a kind, so that counting means something
        kind = draw.choice(names)
        names = [kind if draw.random() < 0.5 else name for name in names]
    return names


def _place(draw: random.Random, noun: str, cell: int, held_out: bool) -> Placed:
    """A thing with a colour that is, or is not, one of those held out for its noun."""
    colours = [c for c in COLOURS if is_held_out(noun, c) == held_out] or list(COLOURS)
    shift = (draw.randint(-1, 1), draw.randint(-1, 1))
    return Placed(noun, draw.choice(colours), draw.choice(tuple(SIZES)), cell, shift)
