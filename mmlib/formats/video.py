"""Video sets: MSRVTT (captions, splits, QA), MSVD (captions, QA) and TGIF-QA."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.formats.reading import (
    Broken,
    Skips,
    each,
    field,
    read_json,
    stream_json,
    stream_table,
    write_list,
)

SPLITS = ("train", "validate", "test")
TGIF_COLUMNS = {
    "frameqa": ("gif_name", "question", "answer", "type", "vid_id", "key", "description"),
    "count": ("gif_name", "question", "answer", "vid_id", "key"),
    "action": ("gif_name", "question", "a1", "a2", "a3", "a4", "a5", "answer", "vid_id", "key"),
    "transition": ("gif_name", "question", "a1", "a2", "a3", "a4", "a5", "answer", "vid_id", "key"),
}
FRAMEQA_TYPES = ("object", "number", "color", "location")


@dataclass(frozen=True)
class CaptionedVideo:
    """A video with its captions (MSRVTT has twenty, MSVD about forty, a VALOR-style row perhaps none)."""

    video_id: str
    captions: tuple[str, ...]
    split: str | None = None


@dataclass(frozen=True)
class VideoQuestion:
    """A question about a video; `options` and an index as answer for TGIF's action and transition."""

    video_id: str
    question: str
    answer: str
    kind: str | None = None
    options: tuple[str, ...] = ()


def read_msrvtt(path: Path, skips: Skips) -> list[CaptionedVideo]:
    """Videos of `MSRVTT_data.json` in file order; captions of unknown videos are counted, as are videos without."""
    captions: dict[str, list[str]] = {}
    for row in each(stream_json(path, "sentences.item"), _sentence, skips, "sen_id"):
        captions.setdefault(row[0], []).append(row[1])
    videos = list(each(stream_json(path, "videos.item"), _video, skips, "video_id"))
    for name in captions.keys() - {name for name, _ in videos}:
        skips.note("captions of an unknown video", name)
    for name, _ in videos:
        if name not in captions:
            skips.note("no caption", name)
    return [CaptionedVideo(name, tuple(captions[name]), split) for name, split in videos if name in captions]


def _sentence(row: Any) -> tuple[str, str]:
    return field(row, "video_id", str), field(row, "caption", str)


def _video(row: Any) -> tuple[str, str]:
    split = field(row, "split", str)
    if split not in SPLITS:
        raise Broken(f"unknown split `{split}`")
    return field(row, "video_id", str), split


def write_msrvtt(path: Path, videos: Iterable[CaptionedVideo]) -> None:
    """Write `MSRVTT_data.json`."""
    videos = list(videos)
    rows = [
        {"id": number, "video_id": video.video_id, "category": 0, "url": "", "start time": 0.0, "end time": 1.0,
         "split": video.split or "train"}
        for number, video in enumerate(videos)
    ]  # fmt: skip
    texts = [(video.video_id, caption) for video in videos for caption in video.captions]
    sentences = [{"sen_id": n, "video_id": name, "caption": caption} for n, (name, caption) in enumerate(texts)]
    store.atomic_write(path, json.dumps({"info": {}, "videos": rows, "sentences": sentences}, ensure_ascii=False))


def read_split(path: Path) -> list[str]:
    """Video ids of an MSRVTT split file (`MSRVTT_JSFUSION_test.csv`, `MSRVTT_train.9k.csv`)."""
    return [row["video_id"] for row in stream_table(path, ("video_id",), ",")]


def read_msvd(captions: Path, ids: Path, skips: Skips) -> list[CaptionedVideo]:
    """Videos of an id list (`train_list.txt`) with captions from JSON {video_id: [[token, …] or text, …]}.

    The public file is a pickle; convert it once elsewhere, because loading a pickle runs whatever it contains.
    """
    if captions.suffix == ".pkl":
        remedy = "convert it to JSON on a machine you can afford to lose: json.dump(pickle.load(f), g)"
        raise UserError(f"{captions} is a pickle, which can run code", remedy)
    table = read_json(captions)
    if not isinstance(table, dict):
        raise UserError(f"{captions} does not map video ids to captions", "check that it is the file of this format")
    videos = []
    for name in ids.read_text(encoding="utf-8").split():
        if not table.get(name):
            skips.note("no caption", name)
            continue
        skips.read += 1
        texts = tuple(" ".join(text) if isinstance(text, list) else text for text in table[name])
        videos.append(CaptionedVideo(name, texts))
    return videos


def write_msvd(captions: Path, ids: Path, videos: Iterable[CaptionedVideo]) -> None:
    """Write the captions as JSON token lists, and the id list."""
    videos = list(videos)
    table = {video.video_id: [text.split() for text in video.captions] for video in videos}
    store.atomic_write(captions, json.dumps(table, ensure_ascii=False))
    store.atomic_write(ids, "".join(f"{video.video_id}\n" for video in videos))


def read_video_qa(path: Path, skips: Skips, prefix: str = "video") -> Iterator[VideoQuestion]:
    """Stream MSRVTT-QA or MSVD-QA (`test_qa.json`); `video_id` is a number there, `prefix` makes it a name."""

    def parse(row: Any) -> VideoQuestion:
        name = f"{prefix}{field(row, 'video_id', int)}"
        return VideoQuestion(name, field(row, "question", str), field(row, "answer", str))

    return each(stream_json(path), parse, skips)


def write_video_qa(path: Path, questions: Iterable[VideoQuestion], prefix: str = "video") -> int:
    """Write MSRVTT-QA or MSVD-QA; the number of questions."""
    return write_list(path, (
        {"id": number, "video_id": int(q.video_id.removeprefix(prefix)), "question": q.question, "answer": q.answer}
        for number, q in enumerate(questions)
    ))  # fmt: skip


def read_youtube_mapping(path: Path) -> dict[str, str]:
    """MSVD-QA's file `clip-name vid12`: number name -> clip name."""
    pairs = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if bad := next((pair for pair in pairs if len(pair) != 2), None):
        raise UserError(f"{path}: line `{' '.join(bad)}` does not have two fields", "use youtube_mapping.txt")
    return {number: clip for clip, number in pairs}


def read_tgif(path: Path, task: str, skips: Skips) -> Iterator[VideoQuestion]:
    """Stream TGIF-QA; tab-separated although the files are called .csv.

    Args:
        task: frameqa, count, action or transition.
    """
    if task not in TGIF_COLUMNS:
        raise UserError(f"unknown TGIF task `{task}`", f"choose from: {', '.join(TGIF_COLUMNS)}")
    rows = stream_table(path, TGIF_COLUMNS[task], "\t")
    return each(rows, lambda row: _tgif(row, task), skips, "key")


def _tgif(row: dict[str, str], task: str) -> VideoQuestion:
    if any(row[column] is None for column in TGIF_COLUMNS[task]):
        raise Broken("row too short")
    kind, options = task, ()
    if task == "frameqa":
        if not row["type"].isdigit() or int(row["type"]) >= len(FRAMEQA_TYPES):
            raise Broken(f"unknown type `{row['type']}`")
        kind = FRAMEQA_TYPES[int(row["type"])]
    elif task != "count":
        options = tuple(row[f"a{number}"] for number in range(1, 6))
        if row["answer"] not in ("0", "1", "2", "3", "4"):
            raise Broken("answer is not an index")
    return VideoQuestion(row["gif_name"], row["question"], row["answer"], kind, options)


def write_tgif(path: Path, task: str, questions: Iterable[VideoQuestion]) -> None:
    """Write TGIF-QA in its layout."""
    with store.atomic_stream(path) as stream:
        table = csv.writer(stream, delimiter="\t", lineterminator="\n")
        table.writerow(TGIF_COLUMNS[task])
        for number, q in enumerate(questions):
            kind = [FRAMEQA_TYPES.index(q.kind)] if task == "frameqa" else []
            answer = [*q.options, q.answer] if q.options else [q.answer]
            described = [""] if task == "frameqa" else []
            table.writerow([q.video_id, q.question, *answer, *kind, f"ID{number}", number, *described])
