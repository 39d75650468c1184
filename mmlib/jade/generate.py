"""Generation at scale: boxes -> caption of each -> typed questions about each (drawn) -> answers (greedy).

A shard is a run of pictures. Its result depends on nothing outside it: random numbers come from (seed, picture, box,
question), so a killed run goes on where it was and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mmlib.engine import shard_map
from mmlib.formats.reading import Skips
from mmlib.jade.batches import Maker, padded
from mmlib.jade.decoding import MOST, TOP_CAPTION, TOP_QUESTION, decode, picture_keys
from mmlib.jade.detect import Box, usable
from mmlib.jade.language import ABSENT
from mmlib.jade.model import Jade, regions
from mmlib.models.clip import pixels

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

BOXES = 6
# Types asked about each box. The released list has no yes and no, although the data has: those were a run of their own.
ASKED = ("what", "what", "what", "how", "how", "where", "other", "yes", "no")
Row = dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """A picture with its boxes, ready for the generator."""

    name: str
    image: np.ndarray
    boxes: list[Box]


def uniforms(seed: int, names: list[str], count: int = MOST) -> Tensor:
    """Random numbers in 0 … 1 that depend on (seed, name) alone: (names, count)."""
    import numpy as np
    import torch

    seeds = [int.from_bytes(hashlib.sha256(f"jade/{seed}/{name}".encode()).digest()[:8], "big") for name in names]
    return torch.from_numpy(np.stack([np.random.default_rng(one).random(count, np.float32) for one in seeds]))


def generate(
    model: Jade, maker: Maker, pictures: list[Picture], seed: int, asked: tuple[str, ...] = ASKED
) -> dict[str, list[Row]]:
    """Per picture the rows of its boxes: `box`, `caption`, `greedy` caption, `asked` (question, answer, prob, type).

    `prob` is the mean probability of the answer's tokens; the released code adds the mark before it.
    """
    owners = [(picture, number) for picture in pictures for number in range(len(picture.boxes))]
    rows: dict[str, list[Row]] = {picture.name: [] for picture in pictures}
    if not owners:
        return rows
    boxes = [picture.boxes[number].corners for picture, number in owners]
    seen = picture_keys(model, _see(model, pictures, owners, boxes))
    names = [f"{picture.name}/{number}" for picture, number in owners]
    captions = _captions(model, maker, seen, boxes, uniforms(seed, names))
    said = ask_boxes(model, maker, seen, boxes, captions, asked, seed, names)
    for place, (picture, _) in enumerate(owners):
        rows[picture.name].append({"box": list(boxes[place]), "caption": captions[place],
                                   "asked": said[place * len(asked) : (place + 1) * len(asked)]})  # fmt: skip
    return rows


def _see(model: Jade, pictures: list[Picture], owners: list[tuple[Picture, int]], boxes: list) -> Tensor:
    """Keys of every box (B, N + 1, D); the part that no box changes is made once per picture."""
    import numpy as np
    import torch

    place = {picture.name: number for number, picture in enumerate(pictures)}
    index = torch.tensor([place[picture.name] for picture, _ in owners])
    with torch.inference_mode():
        patches = model.look.patches(pixels(np.stack([picture.image for picture in pictures])))
        if not model.shape.region:
            return model.see(patches)[index]
        return model.see(patches[index], regions(boxes, pictures[0].image.shape[0]))


def _captions(model: Jade, maker: Maker, seen: list, boxes: list, numbers: Tensor) -> list[str]:
    """A drawn caption of each box (top 3, the end among them)."""
    words = maker.words
    prompts = padded([words.caption_prompt(maker.place(box)) for box in boxes], words.pad)
    made = decode(model, words, seen, prompts, end=words.sep, top=TOP_CAPTION, uniforms=numbers)
    return [words.text(ids) for ids in made.ids]


def ask_boxes(
    model: Jade, maker: Maker, seen: list, boxes: list, captions: list[str], asked: tuple[str, ...], seed: int,
    names: list[str], greedy: bool = False,
) -> list[Row]:  # fmt: skip
    """Questions of each type about each box, then their answers: rows of `question`, `answer`, `prob`, `type`."""
    words = maker.words
    slots = [(box, text, kind) for box, text in zip(boxes, captions, strict=True) for kind in asked]
    prompts = padded([maker.pair_prompt(kind, box, text) for box, text, kind in slots], words.pad)
    numbers = None if greedy else uniforms(seed, [f"{name}/{i}" for name in names for i in range(len(asked))])
    questions = decode(model, words, seen, prompts, end=words.answer, top=TOP_QUESTION, uniforms=numbers,
                       allow_end=False)  # fmt: skip
    answers = _answers(model, maker, seen, slots, questions.ids)
    return [
        {"question": words.text(ids), "answer": words.text(answer), "type": kind, "ended": ended,
         "prob": round(fmean(chances), 6) if chances else 0.0}
        for ids, ended, answer, chances, (_, _, kind) in zip(
            questions.ids, questions.ended, answers.ids, answers.probabilities, slots, strict=True)
    ]  # fmt: skip


def _answers(model: Jade, maker: Maker, seen: list, slots: list, questions: list[list[int]]) -> Any:
    """The type gives way to [unused2]: a binary question is requested by its answer."""
    words = maker.words
    prompts = padded([maker.pair_prompt(None, box, text) for box, text, _ in slots], words.pad)
    prefix = padded([[words.cls, *ids, words.answer] for ids in questions], words.pad)
    return decode(model, words, seen, prompts, prefix=prefix, end=words.sep)


def answer_questions(
    model: Jade, maker: Maker, images: np.ndarray, questions: list[list[str]], batch: int = 64, refuse: bool = False
) -> list[list[tuple[str, float]]]:
    """A filter's answers to the questions about each picture, with the mean probability of their tokens.

    `refuse`: it may say `absent`; else that word is forbidden, and it must commit itself.
    Every picture is encoded once; pictures with fewer questions than others of their batch are filled up.
    """
    import torch

    words, results = maker.words, []
    forbidden = None if refuse else words.ids(ABSENT)
    for start in range(0, len(images), batch):
        part = questions[start : start + batch]
        most = max((len(rows) for rows in part), default=0)
        if not most:
            results += [[] for _ in part]
            continue
        with torch.inference_mode():
            seen = picture_keys(model, model.see(model.look.patches(pixels(images[start : start + batch]))))
        filled = [row for rows in part for row in [*rows, *[""] * (most - len(rows))]]
        prompts = padded([words.vqa_prompt(words.ids(text)) for text in filled], words.pad)
        made = decode(model, words, seen, prompts, end=words.sep, forbidden=forbidden)
        flat = [(words.text(ids), fmean(chances) if chances else 0.0)
                for ids, chances in zip(made.ids, made.probabilities, strict=True)]  # fmt: skip
        results += [flat[i * most : i * most + len(rows)] for i, rows in enumerate(part)]
    return results


def run_shards(
    function: Any, jobs: list[dict[str, Any]], per_shard: int, *, stage: str, key: dict[str, Any],
    root: Path | None = None, engine: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Per job what was made of each of its pictures, from shards of `per_shard` pictures; none is made twice.

    Args:
        function: importable; makes {picture: result} of a shard, which is its job with fewer `pictures`.
        jobs: `name`, `pictures`, and whatever the function needs.
    Raises:
        ValueError: a shard holds other pictures than it was asked for.
    """
    shards = [{**job, "name": f"{job['name']} {start}", "pictures": job["pictures"][start : start + per_shard]}
              for job in jobs for start in range(0, len(job["pictures"]), per_shard)]  # fmt: skip
    results = iter(
        zip(shards, shard_map(function, shards, stage=stage, key=key, root=root, engine=engine), strict=True)
    )
    merged = []
    for job in jobs:
        whole: dict[str, Any] = {}
        while len(whole) < len(job["pictures"]):
            shard, result = next(results)
            if sorted(result) != sorted(shard["pictures"]):
                raise ValueError(f"shard {shard['name']} holds other pictures than it was asked for")
            whole |= {name: result[name] for name in shard["pictures"]}
        merged.append(whole)
    return merged


def with_boxes(scenes: list, images: np.ndarray, detector: Any, skips: Skips, limit: int = BOXES) -> list[Picture]:
    """Pictures with the usable boxes of a detector; defects are counted."""
    return [
        Picture(scene.id, image, usable(detector(scene, image), limit, skips, scene.id))
        for scene, image in zip(scenes, images, strict=True)
    ]
