"""COCO captions: `images` and `annotations` in one JSON object (`captions_val2014.json`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.formats.reading import Skips, each, field, stream_json


@dataclass(frozen=True)
class CocoImage:
    """A picture; width and height in pixels where the file has them."""

    id: int
    file_name: str
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class CocoCaption:
    """One of the (about five) captions of a picture."""

    id: int
    image_id: int
    caption: str


def read_images(path: Path, skips: Skips) -> Iterator[CocoImage]:
    """Stream the pictures."""

    def parse(row: Any) -> CocoImage:
        sides = (field(row, "width", int, None), field(row, "height", int, None))
        return CocoImage(field(row, "id", int), field(row, "file_name", str), *sides)

    return each(stream_json(path, "images.item"), parse, skips)


def read_captions(path: Path, skips: Skips) -> Iterator[CocoCaption]:
    """Stream the captions."""

    def parse(row: Any) -> CocoCaption:
        return CocoCaption(field(row, "id", int), field(row, "image_id", int), field(row, "caption", str))

    return each(stream_json(path, "annotations.item"), parse, skips)


def write_captions(path: Path, images: Iterable[CocoImage], captions: Iterable[CocoCaption]) -> None:
    """Write the object, row by row."""
    with store.atomic_stream(path) as stream:
        stream.write('{"info": {}, "licenses": [], "images": [')
        _rows(stream, ({key: value for key, value in vars(image).items() if value is not None} for image in images))
        stream.write('], "annotations": [')
        _rows(stream, (vars(caption) for caption in captions))
        stream.write("]}\n")


def _rows(stream: Any, rows: Iterable[dict[str, Any]]) -> None:
    for number, row in enumerate(rows):
        stream.write((",\n" if number else "\n") + json.dumps(row, ensure_ascii=False))
