"""Visual Genome: region descriptions, question answers, and the mapping between them.

Version 1.2 has 5,408,689 regions, of which 5,654 have a negative corner: such boxes are clipped, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mmlib.errors import UserError
from mmlib.formats.reading import Broken, Skips, each, field, read_json, stream_json, write_list


@dataclass(frozen=True)
class Region:
    """A described box; x, y is its upper left corner, all in pixels of the original picture."""

    region_id: int
    image_id: int
    phrase: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class GenomeQuestion:
    """A question with one answer."""

    qa_id: int
    image_id: int
    question: str
    answer: str


def read_regions(path: Path, skips: Skips, sizes: dict[int, tuple[int, int]] | None = None) -> Iterator[Region]:
    """Stream region descriptions; negative corners are clipped to 0, boxes that are empty then are skipped.

    Args:
        sizes: image id -> (width, height); boxes are clipped to it, and pictures that are not there (dead links)
            are skipped and counted.
    """
    return each(_below(path, "regions"), lambda row: _region(row, skips, sizes), skips, "region_id")


def _below(path: Path, key: str) -> Iterator[Any]:
    """Rows of the lists inside the images; rows inherit the image's id where they lack one."""
    for image in stream_json(path):
        rows = image.get(key) if isinstance(image, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"{path}: an image has no list `{key}`", "check that it is the file of this format")
        name = image.get("id", image.get("image_id"))
        yield from ({"image_id": name, **row} if isinstance(row, dict) else row for row in rows)


def _region(row: Any, skips: Skips, sizes: dict[int, tuple[int, int]] | None) -> Region:
    name, image = field(row, "region_id", int), field(row, "image_id", int)
    x, y, width, height = (round(field(row, key, (int, float))) for key in ("x", "y", "width", "height"))
    if sizes is not None and image not in sizes:
        raise Broken("dead image")
    limit = sizes[image] if sizes is not None else None
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = (x + width, y + height) if limit is None else (min(x + width, limit[0]), min(y + height, limit[1]))
    if x1 <= x0 or y1 <= y0:
        raise Broken("empty box")
    if (x0, y0, x1 - x0, y1 - y0) != (x, y, width, height):
        skips.note("negative corner clipped" if min(x, y) < 0 else "box outside the image clipped", name)
    return Region(name, image, field(row, "phrase", str).strip(), x0, y0, x1 - x0, y1 - y0)


def read_questions(path: Path, skips: Skips) -> Iterator[GenomeQuestion]:
    """Stream question answers."""

    def parse(row: Any) -> GenomeQuestion:
        ids = field(row, "qa_id", int), field(row, "image_id", int)
        return GenomeQuestion(*ids, field(row, "question", str), field(row, "answer", str))

    return each(_below(path, "qas"), parse, skips, "qa_id")


def read_mapping(path: Path) -> dict[int, int]:
    """Question id -> region id."""
    raw = read_json(path)
    if not isinstance(raw, dict) or not all(key.isdigit() and isinstance(value, int) for key, value in raw.items()):
        raise UserError(f"{path} is not a mapping of ids", "use qa_to_region_mapping.json")
    return {int(key): value for key, value in raw.items()}


def write_regions(path: Path, regions: Iterable[Region]) -> int:
    """Write region descriptions, one image a line (regions of an image must follow one another)."""
    return write_list(path, _grouped(regions, "regions"))


def write_questions(path: Path, questions: Iterable[GenomeQuestion]) -> int:
    """Write question answers, one image a line."""
    return write_list(path, _grouped(questions, "qas"))


def _grouped(rows: Iterable[Any], key: str) -> Iterator[dict[str, Any]]:
    for image_id, part in groupby(rows, lambda row: row.image_id):
        yield {"id": image_id, key: [vars(row) for row in part]}
