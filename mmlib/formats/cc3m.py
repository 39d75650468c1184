"""Conceptual Captions (TSV of caption and url) and CC3M-QA-DC (one JSON file per image in QA/ and DC/).

Both are keyed by crc32 of the url, because 40 to 70 % of the urls are dead by now: a share survives, never all.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.formats.reading import Broken, Skips, each, field

SIDE = 224  # boxes are given in a square of this side


@dataclass(frozen=True)
class WebImage:
    """A picture on the web with its alt-text."""

    caption: str
    url: str

    @property
    def img_id(self) -> str:
        """Name of its files in CC3M-QA-DC."""
        return str(binascii.crc32(self.url.encode()) & 0xFFFFFFFF)


@dataclass(frozen=True)
class GeneratedQuestion:
    """A generated question; binary ones made by template have no `prob`, `object` and `region_description`."""

    question: str
    answer: str
    type: str
    img_id: str
    question_id: int
    prob: float | None = None
    object: tuple[int, int, int, int] | None = None
    region_description: str | None = None


@dataclass(frozen=True)
class DenseCaption:
    """A described box, x0 y0 x1 y1 in 0 … 224."""

    object: tuple[int, int, int, int]
    region_description: str


def read_tsv(path: Path, skips: Skips) -> Iterator[WebImage]:
    """Stream `caption <tab> url` rows; rows with another number of fields, or an empty one, are counted."""
    if not path.is_file():
        raise UserError(f"{path} is missing", "check the path, or write the file first")
    with path.open(encoding="utf-8") as stream:
        rows = (line.rstrip("\n").split("\t") for line in stream)
        yield from each(rows, _web_image, skips)


def _web_image(row: list[str]) -> WebImage:
    if len(row) != 2:
        raise Broken("row without two fields")
    if not row[0].strip() or not row[1].strip():
        raise Broken("no caption" if row[1].strip() else "no url")
    return WebImage(row[0].strip(), row[1].strip())


def write_tsv(path: Path, images: Iterable[WebImage]) -> None:
    """Write the TSV, without a header."""
    with store.atomic_stream(path) as stream:
        for image in images:
            if "\t" in image.caption + image.url or "\n" in image.caption + image.url:
                raise UserError(f"caption of {image.url} has a tab or a line break", "replace it by a space")
            stream.write(f"{image.caption}\t{image.url}\n")


def read_folder(folder: Path, skips: Skips) -> Iterator[tuple[str, list[GeneratedQuestion], list[DenseCaption]]]:
    """(img_id, questions, dense captions) of every image, sorted by id; an image may have one of the two only."""
    for name in sorted({path.name for part in ("QA", "DC") for path in (folder / part).glob("*.json")}):
        image = name.removesuffix(".json")
        questions = list(each(_rows(folder / "QA" / name, skips), lambda row: _question(row, skips), skips))
        captions = list(each(_rows(folder / "DC" / name, skips), lambda row: _dense(row, skips), skips))
        yield image, questions, captions


def _rows(path: Path, skips: Skips) -> list[Any]:
    """The list in a file; an absent or damaged file is counted, because millions of others are well."""
    if not path.is_file():
        skips.note(f"no {path.parent.name} file", path.stem)
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        rows = None
    if not isinstance(rows, list):
        skips.note(f"damaged {path.parent.name} file", path.stem)
        return []
    return rows


def _question(row: Any, skips: Skips) -> GeneratedQuestion:
    name = str(field(row, "img_id", (str, int)))
    texts = [field(row, key, str) for key in ("question", "answer", "type")]
    box = _box(row, skips, name) if isinstance(row.get("object"), list) else None
    prob = field(row, "prob", (int, float), None)
    phrase = field(row, "region_description", str, None)
    return GeneratedQuestion(*texts, name, field(row, "question_id", int), prob, box, phrase)


def _dense(row: Any, skips: Skips) -> DenseCaption:
    phrase = field(row, "region_description", str)
    return DenseCaption(_box(row, skips, phrase), phrase)


def _box(row: Any, skips: Skips, name: str) -> tuple[int, int, int, int]:
    raw = field(row, "object", list)
    if len(raw) != 4 or not all(isinstance(value, int | float) for value in raw):
        raise Broken("`object` is not a box")
    box = tuple(min(max(round(value), 0), SIDE) for value in raw)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise Broken("empty box")
    if list(box) != [round(value) for value in raw]:
        skips.note("box outside the image clipped", name)
    return box


def write_folder(folder: Path, images: Iterable[tuple[str, list[GeneratedQuestion], list[DenseCaption]]]) -> None:
    """Write QA/<img_id>.json and DC/<img_id>.json of every image."""
    for image, questions, captions in images:
        for part, rows in (("QA", questions), ("DC", captions)):
            plain = [{key: value for key, value in vars(row).items() if value is not None} for row in rows]
            store.atomic_write(folder / part / f"{image}.json", json.dumps(plain, ensure_ascii=False))
