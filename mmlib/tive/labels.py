"""Task labels of records: those of LLaVA-1.5's public pool by order and count, and tasks as numbers.

The official `llava_v1_5_mix665k.json` has no `dataset` field, but twelve blocks in a fixed order. Their counts were
corrected by LLaVA's author (LLaVA issue 702); the order is that of DataTailor's selector; totals by picture folder are
in LLaVA issue 657. TIVE's own labelling was not published: its author names ten labels, which we use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from mmlib.formats.llava import Record


@dataclass(frozen=True)
class Block:
    """A run of records: its name (finer than the label), label, count, and folder of its pictures (None: text)."""

    name: str
    label: str
    count: int
    folder: str | None


OFFICIAL = (
    Block("conversation", "llava_instruct", 57_669, "coco"),
    Block("detail", "llava_instruct", 23_240, "coco"),
    Block("reasoning", "llava_instruct", 76_803, "coco"),
    Block("vqav2", "vqav2", 82_783, "coco"),
    Block("okvqa", "okvqa", 8_998, "coco"),
    Block("aokvqa", "aokvqa", 66_160, "coco"),
    Block("refcoco", "refcoco", 48_447, "coco"),
    Block("vg", "vg", 86_417, "vg"),
    Block("gqa", "gqa", 72_140, "gqa"),
    Block("ocrvqa", "ocrvqa", 80_000, "ocr_vqa"),
    Block("textcaps", "textcaps", 21_953, "textvqa"),
    Block("sharegpt", "sharegpt", 40_688, None),
)


def label_by_order(
    records: Iterable[Record], blocks: tuple[Block, ...] = OFFICIAL, fine: bool = False
) -> Iterator[Record]:
    """The records with the labels of their blocks (`fine`: the blocks' names), streamed.

    Read the file with a reader that skips nothing: one missing record would shift every later label.

    Raises:
        UserError: a record whose picture is not of its block's folder, or too few or too many records.
    """
    stream, number = iter(records), 0
    for block in blocks:
        for _ in range(block.count):
            record = next(stream, None)
            if record is None:
                raise UserError(f"the pool ends at record {number}, inside block {block.name}", _remedy(blocks))
            folder = record.image.partition("/")[0] if record.image else None
            if folder != block.folder:
                culprit = (f"record {number} ({record.id}) has a picture of `{folder}`, "
                           f"block {block.name} stands there, with `{block.folder}`")  # fmt: skip
                raise UserError(culprit, _remedy(blocks))
            yield replace(record, dataset=block.name if fine else block.label)
            number += 1
    if next(stream, None) is not None:
        raise UserError(f"the pool goes on after {number} records", _remedy(blocks))


def _remedy(blocks: tuple[Block, ...]) -> str:
    total = sum(block.count for block in blocks)
    return f"label by order only the unchanged file of {total:,} records; give other pools a `dataset` field"


def task_numbers(records: Iterable[Record]) -> tuple[np.ndarray, list[str]]:
    """Task of each record as a number (n,) int64, and the tasks' names, sorted.

    Raises:
        UserError: a record without `dataset`, by name.
    """
    import numpy as np

    labels = []
    for record in records:
        if not record.dataset:
            raise UserError(f"record {record.id} has no `dataset`", "label the pool (mmlib.tive.labels) first")
        labels.append(record.dataset)
    names, numbers = np.unique(np.array(labels, dtype=str), return_inverse=True)
    return numbers.astype(np.int64), names.tolist()


def answer_classes(records: Iterable[Record], words: int = 3) -> np.ndarray:
    """Answers of each record as one lower-cased text, str (n,); `long` if one of them has more than `words` words."""
    import numpy as np

    classes = []
    for record in records:
        said = [turn.text.lower() for turn in record.turns[1::2]]
        classes.append("long" if any(len(text.split()) > words for text in said) else " | ".join(said))
    return np.array(classes, dtype=str)
