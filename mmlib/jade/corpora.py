"""Pictures of the study: a small annotated corpus, a large shifted one from the web, and those of the downstream tasks.

Annotated pictures ("Visual Genome") show half of a noun's colors and its usual size; pictures from the web
("CC3M") mostly show the other colors, the unusual size, more things, and stickers, dim light and noise on top. So the
generator errs by shift alone: nothing that it says is ever corrupted. Parts are disjoint by a hash of what is shown.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.jade.language import NOUNS, drawn_nouns
from mmlib.world.language import alt_text
from mmlib.world.nouns import BACKGROUNDS, CELLS, COLOURS, SIZES, load_nouns
from mmlib.world.scenes import MAX_OBJECTS, SIDE, Placed, Scene, split_of

if TYPE_CHECKING:
    import numpy as np

    from mmlib.formats.cc3m import WebImage
    from mmlib.world.render import Renderer

# Share of scenes, in hundredths, that belong to each part. Generator and filter never see the same picture.
PARTS = {"generator": 20, "filter": 20, "base": 15, "web": 25, "tuning": 10, "test": 10}
ANNOTATED = ("generator", "filter", "base")
TRIES = 20_000
URL = "https://pictures.invalid/{name}.png"  # `.invalid` never resolves (RFC 2606): these pictures are drawn


@dataclass(frozen=True)
class Statistics:
    """How things are drawn: share of unfamiliar colors, share of usual sizes, numbers of things."""

    unfamiliar: float
    usual: float
    objects: tuple[int, int]


ANNOTATED_STATISTICS = Statistics(0.0, 0.75, (1, 4))
WEB_STATISTICS = Statistics(0.6, 0.25, (2, 6))


@dataclass(frozen=True)
class Clutter:
    """What lies over a picture from the web: stickers of foreign things, least brightness, deviation of noise.

    As much as leaves a generator wrong in half of what it says (seed 100): twice as much left a third right.
    """

    stickers: int = 1
    sticker_pixels: int = 12
    dimmest: float = 0.8
    noise: float = 6.0


def draw_part(part: str, count: int, seed: int, statistics: Statistics | None = None) -> list[Scene]:
    """`count` different scenes of a part; the first n are the same for every larger count.

    Args:
        statistics: None: those of an annotated part or of the web, as the part is.
    Raises:
        UserError: unknown part.
    """
    if part not in PARTS:
        raise UserError(f"unknown part `{part}`", f"choose from: {', '.join(PARTS)}")
    statistics = statistics or (ANNOTATED_STATISTICS if part in ANNOTATED else WEB_STATISTICS)
    draw = random.Random(f"jade/{part}/{seed}/{statistics}")
    stream = _different(draw, part, statistics)
    scenes = (next(stream) for _ in range(count))
    return [Scene(f"{part}{seed}-{n:06d}", s.objects, None, s.background, s.view) for n, s in enumerate(scenes)]


def _different(draw: random.Random, part: str, statistics: Statistics) -> Iterator[Scene]:
    seen: set[str] = set()
    failed = 0
    while failed < TRIES:
        scene = _draw(draw, statistics)
        if part_of(scene) == part and scene.key not in seen:
            seen.add(scene.key)
            failed = 0
            yield scene
        failed += 1
    raise UserError(f"no further scene of part `{part}` after {TRIES} draws", "ask for fewer, or more nouns")


def part_of(scene: Scene) -> str:
    """The only part in which a scene may appear; tests only hold pictures that the world's CLIP never met."""
    bucket = _bucket(f"jade/{scene.key}")
    for part, share in PARTS.items():
        if bucket < share:
            return "none" if part == "test" and split_of(scene) == "train" else part
        bucket -= share
    raise AssertionError("shares of the parts do not add up to 100")


def _bucket(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100


@cache
def familiar(noun: str) -> tuple[str, ...]:
    """The half of the colors in which annotated pictures show a noun."""
    return tuple(sorted(COLOURS, key=lambda colour: hashlib.sha256(f"jade/{noun}/{colour}".encode()).digest())[:4])


def usual_size(noun: str) -> str:
    """The size that a noun mostly has in annotated pictures."""
    return tuple(SIZES)[_bucket(f"jade/size/{noun}") % 2]


def _draw(draw: random.Random, statistics: Statistics) -> Scene:
    count = draw.randint(*statistics.objects)
    chosen = draw.choices(drawn_nouns(), k=count)
    if count > 1 and draw.random() < 0.4:  # several of a kind, so that counting means something
        kind = draw.choice(chosen)
        chosen = [kind if draw.random() < 0.5 else name for name in chosen]
    cells = sorted(draw.sample(range(len(CELLS)), count))
    things = tuple(_place(draw, name, cell, statistics) for name, cell in zip(chosen, cells, strict=True))
    return Scene("", things, None, draw.choice(BACKGROUNDS), (draw.randrange(256), draw.randrange(256)))


def _place(draw: random.Random, noun: str, cell: int, statistics: Statistics) -> Placed:
    known = familiar(noun)
    strange = tuple(colour for colour in COLOURS if colour not in known)
    colour = draw.choice(strange if draw.random() < statistics.unfamiliar else known)
    usual = usual_size(noun)
    other = next(size for size in SIZES if size != usual)
    size = usual if draw.random() < statistics.usual else other
    return Placed(noun, colour, size, cell, (draw.randint(-1, 1), draw.randint(-1, 1)))


def pictures(renderer: Renderer, scenes: list[Scene], clutter: Clutter | None = None) -> np.ndarray:
    """uint8 (N, 72, 72, 3); clutter depends on the scene's id alone, so that any order gives the same pictures.

    Args:
        clutter: None for annotated pictures. Stickers show foreign nouns: no question is about one.
    """
    images = renderer.render_all(scenes)
    if clutter is not None:
        foreign = [noun.noun for noun in load_nouns()[NOUNS:]]
        for image, scene in zip(images, scenes, strict=True):
            _litter(image, renderer, scene.id, foreign, clutter)
    return images


def _litter(image: np.ndarray, renderer: Renderer, name: str, foreign: list[str], clutter: Clutter) -> None:
    import numpy as np

    from mmlib.world.render import over

    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    for _ in range(clutter.stickers):
        side = clutter.sticker_pixels
        x, y = draw.integers(0, SIDE - side, 2)
        over(image[y : y + side, x : x + side], renderer.sprite(foreign[draw.integers(len(foreign))], side))
    light = draw.uniform(clutter.dimmest, 1.0)
    noisy = image * light + draw.normal(0, clutter.noise, image.shape)
    image[:] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def web_image(scene: Scene, noise: float = 0.25) -> WebImage:
    """Address and the one careless line of alt-text of a picture from the web."""
    from mmlib.formats.cc3m import WebImage

    draw = random.Random(f"jade/alt/{scene.id}")
    return WebImage(alt_text(scene, draw, noise).text, URL.format(name=scene.id))


assert sum(PARTS.values()) == 100 and max(WEB_STATISTICS.objects) <= MAX_OBJECTS
