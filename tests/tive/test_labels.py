"""Labelling of the official file by record order, on a synthetic file in the same order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from mmlib.errors import UserError
from mmlib.formats.llava import Record, Turn, read_records, write_records
from mmlib.formats.reading import Skips
from mmlib.tive import labels
from mmlib.world.pool import KINDS

SMALL = tuple(replace(block, count=block.count // 1000) for block in labels.OFFICIAL)
PREFIX_TOTALS = {"coco": 364_100, "vg": 86_417, "gqa": 72_140, "ocr_vqa": 80_000, "textvqa": 21_953, None: 40_688}


def official(blocks=SMALL):
    """The official layout: no `dataset`, text-only records with a `model`, pictures with a folder."""
    for block in blocks:
        for i in range(block.count):
            human = "<image>\nwhat ?" if block.folder else "hello"
            yield Record(f"{block.name}/{i}", block.folder and f"{block.folder}/train/{i}.jpg",
                         (Turn("human", human), Turn("gpt", "x")), None, None if block.folder else "")  # fmt: skip


def test_the_table_adds_up_and_agrees_with_the_pool():
    assert sum(block.count for block in labels.OFFICIAL) == 665_298
    starts = [sum(b.count for b in labels.OFFICIAL[:i]) for i in range(12)]
    assert starts == [0, 57669, 80909, 157712, 240495, 249493, 315653, 364100, 450517, 522657, 602657, 624610]
    totals = Counter()
    for block in labels.OFFICIAL:
        totals[block.folder] += block.count
    assert totals == PREFIX_TOTALS
    assert [(b.label, b.count, b.folder) for b in labels.OFFICIAL] == [(k.label, k.original, k.folder) for k in KINDS]


def test_labels_by_order(tmp_path):
    write_records(tmp_path / "mix.json", official())
    read = read_records(tmp_path / "mix.json", Skips())
    made = list(labels.label_by_order(read, SMALL))
    assert Counter(r.dataset for r in made)["llava_instruct"] == 57 + 23 + 76 and len(made) == sum(
        b.count for b in SMALL
    )
    fine = list(labels.label_by_order(official(), SMALL, fine=True))
    assert all(record.dataset == record.id.partition("/")[0] for record in fine)
    assert labels.task_numbers(made)[1] == sorted({b.label for b in SMALL})


def test_a_moved_record_is_named():
    pool = list(official())
    for wrong, message in (
        (pool[1:], r"record 359 \(vg/0\) has a picture of `vg`, block refcoco"),
        (pool[:-1], "ends at record"),
        ([*pool, pool[0]], "goes on after"),
        ([pool[-1], *pool[1:]], r"record 0 \(sharegpt/39\) has a picture of `None`"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            list(labels.label_by_order(wrong, SMALL))
        assert "record" in str(caught.value)
