"""LLaVA: instruction records (`llava_v1_5_mix665k.json`), and the JSONL of its questions and answers.

A record has `id`, perhaps `image`, and `conversations` of alternating `human` and `gpt` turns; `<image>` marks the
picture in a human turn. TIVE adds the label `dataset`. ShareGPT's records have no `image` and a `model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlib.errors import UserError
from mmlib.formats.reading import Broken, Skips, each, field, stream_json, stream_lines, write_lines, write_list

IMAGE_MARK = "<image>"
SPEAKERS = ("human", "gpt")


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Record:
    """An instruction record; `turns` alternate and begin with `human`."""

    id: str
    image: str | None
    turns: tuple[Turn, ...]
    dataset: str | None = None
    model: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The public layout; absent optional keys stay absent."""
        optional = {"image": self.image, "model": self.model, "dataset": self.dataset}
        return {
            "id": self.id,
            **{key: value for key, value in optional.items() if value is not None},
            "conversations": [{"from": turn.speaker, "value": turn.text} for turn in self.turns],
        }


def read_records(path: Path, skips: Skips, labels: frozenset[str] | None = None) -> Iterator[Record]:
    """Stream the usable records of a pool.

    Skipped and counted: no or empty `conversations`, unknown speaker, `<image>` without an `image`, no answer.
    Mended and counted: a first turn by `gpt` (dropped), `image` without `<image>` (put in front), as LLaVA does.

    Args:
        labels: known `dataset` labels; None accepts all, and records without one.
    Raises:
        UserError: a label that is not known: a whole task would vanish silently otherwise.
    """
    return each(stream_json(path), lambda row: _record(row, skips, labels, path), skips)


def _record(row: Any, skips: Skips, labels: frozenset[str] | None, path: Path) -> Record:
    name = str(field(row, "id", (str, int)))
    image, label = field(row, "image", str, None), field(row, "dataset", str, None)
    if labels is not None and label not in labels:
        raise UserError(
            f"{path}: record {name} has the task label `{label}`", f"use one of: {', '.join(sorted(labels))}"
        )
    turns = [_turn(turn) for turn in field(row, "conversations", list)]
    if turns and turns[0].speaker == "gpt":
        skips.note("first turn by gpt dropped", name)
        turns = turns[1:]
    if len(turns) < 2:
        raise Broken("no answer")
    if any(turn.speaker != SPEAKERS[i % 2] for i, turn in enumerate(turns)):
        raise Broken("turns do not alternate")
    marked = any(IMAGE_MARK in turn.text for turn in turns)
    if marked and image is None:
        raise Broken("<image> without image")
    if image is not None and not marked:
        skips.note("image without <image>: put in front", name)
        turns[0] = Turn("human", f"{IMAGE_MARK}\n{turns[0].text}")
    return Record(name, image, tuple(turns), label, field(row, "model", str, None))


def _turn(row: Any) -> Turn:
    speaker = field(row, "from", str)
    if speaker not in SPEAKERS:
        raise Broken(f"unknown speaker `{speaker}`")
    return Turn(speaker, field(row, "value", str))


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write a pool; the number of records."""
    return write_list(path, (record.as_json() for record in records))


@dataclass(frozen=True)
class Question:
    """A line of a question file; `answer` is ours, absent from the public files."""

    question_id: str
    image: str | None
    text: str
    category: str | None = None
    answer: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The public layout."""
        optional = {"image": self.image, "category": self.category, "answer": self.answer}
        kept = {key: value for key, value in optional.items() if value is not None}
        return {"question_id": self.question_id, "text": self.text, **kept}


@dataclass(frozen=True)
class Answer:
    """A line of an answer file."""

    question_id: str
    prompt: str
    text: str
    answer_id: str
    model_id: str
    metadata: dict[str, Any]


def read_questions(path: Path, skips: Skips) -> Iterator[Question]:
    """Stream a question file."""

    def parse(row: Any) -> Question:
        name = str(field(row, "question_id", (str, int)))
        optional = [field(row, key, str, None) for key in ("category", "answer")]
        return Question(name, field(row, "image", str, None), field(row, "text", str), *optional)

    return each(stream_lines(path, skips), parse, skips, "question_id")


def write_questions(path: Path, questions: Iterable[Question]) -> int:
    """Write a question file; the number of questions."""
    return write_lines(path, (question.as_json() for question in questions))


def read_answers(path: Path, skips: Skips) -> Iterator[Answer]:
    """Stream an answer file."""

    def parse(row: Any) -> Answer:
        texts = [str(field(row, key, (str, int))) for key in ("question_id", "prompt", "text", "answer_id", "model_id")]
        return Answer(*texts, field(row, "metadata", dict, {}))

    return each(stream_lines(path, skips), parse, skips, "question_id")


def write_answers(path: Path, answers: Iterable[Answer]) -> int:
    """Write an answer file; the number of answers."""
    return write_lines(path, (dict(vars(answer)) for answer in answers))
