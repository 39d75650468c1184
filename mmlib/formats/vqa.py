"""VQA v2: questions in one file, annotations with ten answers each in another; joined by `question_id`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.formats.reading import Broken, Skips, each, field, stream_json

ANSWER_TYPES = ("yes/no", "number", "other")


@dataclass(frozen=True)
class VqaQuestion:
    """A question about a picture."""

    question_id: int
    image_id: int
    question: str


@dataclass(frozen=True)
class VqaAnnotation:
    """The (usually ten) answers to a question."""

    question_id: int
    image_id: int
    question_type: str
    answer_type: str
    multiple_choice_answer: str
    answers: tuple[str, ...]


def image_name(image_id: int, split: str) -> str:
    """`COCO_val2014_000000000042.jpg`."""
    return f"COCO_{split}2014_{image_id:012d}.jpg"


def read_questions(path: Path, skips: Skips) -> Iterator[VqaQuestion]:
    """Stream a questions file."""

    def parse(row: Any) -> VqaQuestion:
        return VqaQuestion(field(row, "question_id", int), field(row, "image_id", int), field(row, "question", str))

    return each(stream_json(path, "questions.item"), parse, skips, "question_id")


def read_annotations(path: Path, skips: Skips) -> Iterator[VqaAnnotation]:
    """Stream an annotations file; test splits have none."""
    return each(stream_json(path, "annotations.item"), _annotation, skips, "question_id")


def _annotation(row: Any) -> VqaAnnotation:
    kind = field(row, "answer_type", str, "other")
    if kind not in ANSWER_TYPES:
        raise Broken(f"unknown answer type `{kind}`")
    answers = tuple(field(answer, "answer", str) for answer in field(row, "answers", list))
    if not answers:
        raise Broken("no answers")
    common = field(row, "multiple_choice_answer", str, answers[0])
    ids = field(row, "question_id", int), field(row, "image_id", int)
    return VqaAnnotation(*ids, field(row, "question_type", str, ""), kind, common, answers)


def join(
    questions: Iterable[VqaQuestion], annotations: Iterable[VqaAnnotation], skips: Skips
) -> Iterator[tuple[VqaQuestion, VqaAnnotation]]:
    """Questions with their annotations, in the order of the questions; the lonely ones of both files are counted."""
    by_id = {annotation.question_id: annotation for annotation in annotations}
    for question in questions:
        if question.question_id in by_id:
            yield question, by_id.pop(question.question_id)
        else:
            skips.note("question without annotation", question.question_id)
    for lonely in by_id:
        skips.note("annotation without question", lonely)


def write(folder: Path, pairs: Iterable[tuple[VqaQuestion, VqaAnnotation]], split: str) -> tuple[Path, Path]:
    """Write both files under their public names; their paths."""
    pairs = list(pairs)
    questions = folder / f"v2_OpenEnded_mscoco_{split}_questions.json"
    annotations = folder / f"v2_mscoco_{split}_annotations.json"
    head = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": split}
    rows = [vars(question) for question, _ in pairs]
    store.atomic_write(questions, json.dumps({**head, "task_type": "Open-Ended", "questions": rows}))
    store.atomic_write(annotations, json.dumps({**head, "annotations": [_as_json(a) for _, a in pairs]}))
    return questions, annotations


def _as_json(annotation: VqaAnnotation) -> dict[str, Any]:
    answers = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number}
        for number, answer in enumerate(annotation.answers, 1)
    ]
    return {**vars(annotation), "answers": answers}
