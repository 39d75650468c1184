"""What the world is made of: 148 concrete nouns with facts about them, colours, sizes, cells, signs, backgrounds.

Names are the `emoji` package's own English names; category and facts stand in nouns.csv (ours).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmlib.errors import UserError

TABLE = Path(__file__).with_name("nouns.csv")
COLOURS = {
    "red": (214, 48, 49), "orange": (243, 156, 18), "yellow": (251, 224, 80), "green": (46, 160, 67),
    "blue": (52, 120, 214), "purple": (130, 80, 190), "pink": (246, 150, 190), "brown": (139, 94, 60),
}  # fmt: skip
SIZES = {"small": 14, "large": 20}  # pixels of the drawing
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
CELLS = ("northwest", "north", "northeast", "west", "center", "east", "southwest", "south", "southeast")  # row by row
SIGNS = (
    "zoo", "spa", "gym", "bar", "pub", "inn", "sea", "ice", "tea", "jam", "ham", "fun", "toy", "art", "ink", "oil",
    "gas", "sky", "sun", "win", "new", "end", "map", "bay",
)  # fmt: skip
FLAT = {"white": (245, 245, 245), "gray": (160, 160, 160), "black": (30, 30, 30), "beige": (222, 205, 170)}
PHOTOS = {"grass": "grass.png", "gravel": "gravel.png", "bricks": "brick.png", "stars": "hubble_deep_field.jpg"}
BACKGROUNDS = (*FLAT, *PHOTOS)


@dataclass(frozen=True)
class Noun:
    """A drawable noun: its OpenMoji file name, category, where it is usually found, whether one hand can hold it."""

    noun: str
    code: str
    category: str
    place: str
    held: str  # "yes" or "no"


@cache
def load_nouns(path: Path = TABLE) -> tuple[Noun, ...]:
    """All nouns, in the order of the table.

    Raises:
        UserError: a noun stands twice, or a cell of the table is empty.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [Noun(**row) for row in csv.DictReader(stream)]
    names = [row.noun for row in rows]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path.name}: noun `{twice}` stands twice", "remove one of the two rows")
    for row in rows:
        if empty := next((key for key, value in vars(row).items() if not value), None):
            raise UserError(f"{path.name}: noun `{row.noun}` has no `{empty}`", "fill the cell")
    return tuple(rows)


@cache
def by_name() -> dict[str, Noun]:
    """Noun by its name."""
    return {noun.noun: noun for noun in load_nouns()}


@cache
def of_category(category: str) -> tuple[str, ...]:
    """Names of the nouns of a category."""
    return tuple(noun.noun for noun in load_nouns() if noun.category == category)
