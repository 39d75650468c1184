"""Streaming: one record in memory at a time, defects counted by name, useless files refused."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from mmlib.errors import UserError
from mmlib.formats import reading
from mmlib.formats.reading import Skips


def test_a_big_file_is_streamed(tmp_path):
    path = tmp_path / "big.json"
    reading.write_list(path, ({"id": i, "text": "x" * 1000} for i in range(20_000)))
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    assert sum(1 for _ in reading.stream_json(path)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000, f"{peak} bytes held at once"


def test_lists_below_keys_and_empty_lists_are_found(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"info": {"item": [9]}, "rows": [{"a": 1}, {"a": [2]}], "none": []}')
    assert list(reading.stream_json(path, "rows.item")) == [{"a": 1}, {"a": [2]}]
    assert list(reading.stream_json(path, "none.item")) == []
    assert reading.write_list(path, []) == 0 and list(reading.stream_json(path)) == []


@pytest.mark.parametrize(
    ("text", "prefix", "message"),
    [
        ('[{"a": 1}, {"a"', "item", "not whole JSON"),
        ("caption\turl", "item", "not whole JSON"),
        ('{"rows": []}', "item", "does not hold a list$"),
        ('{"rows": {}}', "rows.item", "does not hold a list below `rows`"),
        ("[1]", "rows.item", "does not hold a list below `rows`"),
    ],
)
def test_useless_files_are_refused(tmp_path, text, prefix, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        list(reading.stream_json(path, prefix))
    import re

    assert re.search(message, error.value.culprit)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json is missing"):
        list(reading.stream_json(tmp_path / "gone.json"))


def test_defects_are_counted_with_examples():
    skips = Skips()
    rows = [{"id": 1, "n": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}, {"id": 6, "n": True}, 7]
    read = list(reading.each(rows, lambda row: reading.field(row, "n", int), skips))
    assert read == [1] and skips.read == 1
    assert skips.counts == {"no `n`": 4, "`n` is of type bool": 1, "not an object": 1}
    assert str(skips) == ("read 1, defects 6: no `n` 4 (2, 3, 4), `n` is of type bool 1 (6), not an object 1 (row 6)")


def test_lines_that_do_not_parse_are_counted(tmp_path):
    path, skips = tmp_path / "a.jsonl", Skips()
    path.write_text('{"a": 1}\n\n{"a"\n{"a": 2}\n')
    assert [row["a"] for row in reading.stream_lines(path, skips)] == [1, 2]
    assert skips.examples == {"line is not JSON": ["line 3"]}


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    reading.write_list(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        reading.write_list(path, rows())
    assert json.loads(path.read_text()) == [{"a": 1}] and len(list(tmp_path.iterdir())) == 1


def test_a_table_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("key,video\n1,2\n")
    with pytest.raises(UserError, match=r"has no column video_id \(it has: key, video\)"):
        list(reading.stream_table(path, ("video_id",), ","))
