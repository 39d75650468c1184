"""The data set in the exact layout of CC3M-QA-DC: QA/<img_id>.json and DC/<img_id>.json, under a manifest.

Boxes are given in a square of 224, as the released ones; binary questions have the type `binary`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.formats.cc3m import SIDE as PUBLIC_SIDE
from mmlib.formats.cc3m import DenseCaption, GeneratedQuestion, read_folder, write_folder
from mmlib.formats.reading import Skips
from mmlib.jade.filtering import BINARY

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
Boxes = list[dict[str, Any]]


def questions_of(boxes: Boxes) -> list[Row]:
    """Rows of all boxes of a picture, each with its `box` and `caption`."""
    return [{**row, "box": box["box"], "caption": box["caption"]} for box in boxes for row in box["asked"]]


def captions_of(boxes: Boxes) -> list[tuple[tuple[int, ...], str]]:
    """(box, caption) of a picture, each once, empty captions left out."""
    return list(dict.fromkeys((tuple(box["box"]), box["caption"]) for box in boxes if box["caption"]))


def public_box(box: Iterable[int], side: int) -> tuple[int, int, int, int]:
    """From pixels of a square picture to the square of 224; a box that is not empty stays so."""
    x0, y0, x1, y1 = (round(value * PUBLIC_SIDE / side) for value in box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def export(
    folder: Path, pictures: Iterable[tuple[str, list[Row], list[tuple[tuple[int, ...], str]]]], side: int
) -> dict[str, int]:
    """Write (img_id, question rows, dense captions) of every picture, with a manifest; numbers of each.

    Pictures without a question and without a caption are left out, and counted.

    Raises:
        UserError: the folder already has something in it, or two pictures share an id.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty", "remove it, or write to another folder")
    counts = {"pictures": 0, "questions": 0, "captions": 0, "without anything": 0}
    write_folder(folder, _public(pictures, side, counts))
    store.write_manifest(folder, **counts)
    return counts


def _public(pictures: Iterable[tuple], side: int, counts: dict[str, int]) -> Iterator[tuple]:
    seen: set[str] = set()
    for image, rows, captions in pictures:
        if image in seen:
            raise UserError(f"two pictures have the id {image}", "make sure that their addresses differ")
        seen.add(image)
        if not rows and not captions:
            counts["without anything"] += 1
            continue
        start = counts["questions"]
        made = [_question(row, image, start + number, side) for number, row in enumerate(rows)]
        dense = [DenseCaption(public_box(box, side), text) for box, text in captions]
        counts["pictures"] += 1
        counts["questions"] += len(made)
        counts["captions"] += len(dense)
        yield image, made, dense


def _question(row: Row, image: str, number: int, side: int) -> GeneratedQuestion:
    kind = "binary" if row["answer"] in BINARY else row["type"]
    return GeneratedQuestion(row["question"], row["answer"], kind, image, number, row["prob"],
                             public_box(row["box"], side), row["caption"])  # fmt: skip


def read(folder: Path, skips: Skips) -> Iterator[tuple[str, list[GeneratedQuestion], list[DenseCaption]]]:
    """Every picture of an exported folder, after its manifest was checked.

    Raises:
        UserError: a file is missing, was changed or cut short, or belongs to no picture of this data set.
    """
    store.verify_manifest(folder)
    yield from read_folder(folder, skips)


def as_datasets(folder: Path) -> dict[str, Dataset]:
    """`QA` and `DC` as tables of the library `datasets`, a row per question and per caption."""
    from datasets import Dataset

    tables: dict[str, list[Row]] = {"QA": [], "DC": []}
    for image, questions, captions in read(folder, Skips()):
        tables["QA"] += [{**vars(row), "object": list(row.object) if row.object else None} for row in questions]
        tables["DC"] += [{"img_id": image, "object": list(row.object), "region_description": row.region_description}
                         for row in captions]  # fmt: skip
    return {name: Dataset.from_list(rows) for name, rows in tables.items()}
