"""LLaVA's files: public layout in, the same out; known defects counted."""

from __future__ import annotations

import json

import pytest

from mmlib.errors import UserError
from mmlib.formats import llava
from mmlib.formats.reading import Skips

PUBLIC = [
    {"id": "000000033471", "image": "coco/train2017/000000033471.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat are the colors of the bus in the image?"},
        {"from": "gpt", "value": "The bus in the image is white and red."},
        {"from": "human", "value": "What feature can be seen on the back of the bus?"},
        {"from": "gpt", "value": "The back of the bus features an advertisement."}]},
    {"id": "wgByO4Y_0", "model": "gpt-4", "conversations": [
        {"from": "human", "value": "Write a haiku."}, {"from": "gpt", "value": "An old silent pond"}]},
    {"id": 7, "image": "vg/VG_100K/2.jpg", "dataset": "vg", "conversations": [
        {"from": "human", "value": "<image>\nPhrase for [0.1,0.2,0.3,0.4]?"}, {"from": "gpt", "value": "a dog"}]},
]  # fmt: skip
TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


def read(tmp_path, rows, **options):
    path, skips = tmp_path / "pool.json", Skips()
    path.write_text(json.dumps(rows))
    return list(llava.read_records(path, skips, **options)), skips


def test_a_pool_survives_the_round_trip(tmp_path):
    records, skips = read(tmp_path, PUBLIC)
    assert skips.read == 3 and not skips.counts
    assert records[0].turns[3].speaker == "gpt" and records[1].image is None and records[1].model == "gpt-4"
    assert llava.write_records(tmp_path / "again.json", records) == 3
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == [{**row, "id": str(row["id"])} for row in PUBLIC]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "a"}, "no `conversations`"),
        ({"id": "a", "conversations": []}, "no answer"),
        ({"id": "a", "conversations": TURNS[:1]}, "no answer"),
        ({"id": "a", "conversations": [TURNS[0], TURNS[0]]}, "turns do not alternate"),
        ({"id": "a", "conversations": [{"from": "system", "value": "x"}, *TURNS]}, "unknown speaker `system`"),
        ({"id": "a", "conversations": [{"from": "human", "value": "<image>\nx"}, TURNS[1]]}, "<image> without image"),
        ({"id": "a", "conversations": [{"from": "human"}, TURNS[1]]}, "no `value`"),
        ({"conversations": TURNS}, "no `id`"),
        ("text", "not an object"),
    ],
)
def test_unusable_records_are_counted_by_reason(tmp_path, row, reason):
    records, skips = read(tmp_path, [row, PUBLIC[1]])
    assert [record.id for record in records] == ["wgByO4Y_0"] and skips.counts == {reason: 1}


def test_mended_records_are_counted_too(tmp_path):
    rows = [{"id": "a", "conversations": [{"from": "gpt", "value": "Yes?"}, *TURNS]},
            {"id": "b", "image": "x.jpg", "conversations": TURNS}]  # fmt: skip
    records, skips = read(tmp_path, rows)
    assert [turn.text for turn in records[0].turns] == ["Hi", "Hello"]
    assert records[1].turns[0].text == "<image>\nHi"
    assert skips.counts == {"first turn by gpt dropped": 1, "image without <image>: put in front": 1}


def test_an_unknown_or_missing_task_label_is_an_error(tmp_path):
    with pytest.raises(UserError, match="record 000000033471 has the task label `None`"):
        read(tmp_path, PUBLIC, labels=frozenset({"vg"}))
    records, _ = read(tmp_path, PUBLIC[2:], labels=frozenset({"vg"}))
    assert records[0].dataset == "vg"


def test_questions_and_answers_survive_the_round_trip(tmp_path):
    questions = [llava.Question("0", "a.jpg", "Is there a snowboard?", "default"), llava.Question("1", None, "Why?")]
    answers = [llava.Answer("0", "Is there a snowboard?", "yes", "x1", "llava", {})]
    path, skips = tmp_path / "q.jsonl", Skips()
    assert llava.write_questions(path, questions) == 2 and list(llava.read_questions(path, skips)) == questions
    assert json.loads(path.read_text().splitlines()[1]) == {"question_id": "1", "text": "Why?"}
    assert llava.write_answers(path, answers) == 1 and list(llava.read_answers(path, skips)) == answers
    path.write_text('{"question_id": 3, "image": "a.jpg", "text": "Is it?", "category": "conv"}\n{"text": "x"}\n')
    assert [q.question_id for q in llava.read_questions(path, skips)] == ["3"]
    assert skips.counts == {"no `question_id`": 1}
