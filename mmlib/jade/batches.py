"""From annotated pictures to batches: targets, prompts, what is masked and what is asked of a model.

Masks as the released code has them: 60 % of a caption's and of a question's pieces (with the mark that closes it),
all of an answer's; a masked piece becomes [MASK] in 80 of 100 cases, a random word in 10, and stays in 10.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmlib.jade import language
from mmlib.jade.language import ABSENT, TYPES, Said
from mmlib.jade.model import IGNORED, Shape, regions
from mmlib.jade.tokens import Words, first_word
from mmlib.jade.truth import PRESUPPOSITION, judge
from mmlib.models.clip import epochs, pixels
from mmlib.world.scenes import SIDE, Scene

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SHARE = 0.6
LOOSE = 2  # pixels by which an annotator's box may be off: a detector's are, and each coordinate is a word
Ids = list[int]
Corners = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sequence:
    """One target with its prompt; labels are -100 where nothing is asked."""

    target: Ids
    prompt: Ids
    labels: Ids
    task: str


def mask(ids: Ids, where: list[int], words: Words, draw: random.Random, share: float) -> tuple[Ids, Ids]:
    """(input, labels): a share of the places `where`, at least one, is asked."""
    chosen = [place for place in where if draw.random() < share] or [draw.choice(where)]
    given, labels = list(ids), [IGNORED] * len(ids)
    for place in chosen:
        labels[place] = ids[place]
        lot = draw.random()
        if lot < 0.8:
            given[place] = words.mask
        elif lot < 0.9:
            given[place] = draw.randrange(first_word(words.side), len(words))
    return given, labels


class Maker:
    """Makes the sequences of the three tasks.

    Args:
        shape: whether location tokens are in the prompts.
        caption_in_prompt: whether a question is asked with the region's caption at hand.
    """

    def __init__(self, words: Words, shape: Shape, caption_in_prompt: bool = True) -> None:
        self.words, self.shape, self.caption_in_prompt = words, shape, caption_in_prompt

    def place(self, box: tuple[int, int, int, int]) -> Ids:
        """Location tokens, or none."""
        return self.words.place(box) if self.shape.places else []

    def pair_prompt(self, kind: str | None, box: tuple[int, int, int, int], caption: str) -> Ids:
        """Prompt of a question (or, with kind None, of its answer)."""
        shown = self.words.ids(caption) if self.caption_in_prompt else []
        return self.words.pair_prompt(kind, self.place(box), shown)

    def caption(self, box: tuple[int, int, int, int], phrase: str, draw: random.Random) -> Sequence:
        """A region's caption; [SEP] is one of its pieces, or no caption would ever end."""
        ids = [self.words.cls, *self.words.ids(phrase), self.words.sep]
        given, labels = mask(ids, list(range(1, len(ids))), self.words, draw, SHARE)
        return Sequence(given, self.words.caption_prompt(self.place(box)), labels, "caption")

    def whole(self, text: str, draw: random.Random) -> Sequence:
        """The alt-text of a whole picture: a caption of no box."""
        ids = [self.words.cls, *self.words.ids(text), self.words.sep]
        given, labels = mask(ids, list(range(1, len(ids))), self.words, draw, SHARE)
        return Sequence(given, self.words.caption_prompt([]), labels, "caption")

    def question(self, said: Said, box: tuple[int, int, int, int], phrase: str, draw: random.Random) -> Sequence:
        """A question. Its answer would follow, but the target is causal: no masked piece could see it."""
        ids = [self.words.cls, *self.words.ids(said.question), self.words.answer]
        given, labels = mask(ids, list(range(1, len(ids))), self.words, draw, SHARE)
        return Sequence(given, self.pair_prompt(said.type, box, phrase), labels, "question")

    def answer(self, said: Said, box: tuple[int, int, int, int], phrase: str, draw: random.Random) -> Sequence:
        """An answer with its [SEP]; the question is visible, its type is not."""
        asked = [self.words.cls, *self.words.ids(said.question), self.words.answer]
        ids = [*asked, *self.words.ids(said.answer), self.words.sep]
        given, labels = mask(ids, list(range(len(asked), len(ids))), self.words, draw, 1.0)
        return Sequence(given, self.pair_prompt(None, box, phrase), labels, "answer")

    def vqa(self, question: str, answer: str, draw: random.Random) -> Sequence:
        """What a filter learns: picture and question -> answer."""
        ids = [self.words.cls, *self.words.ids(answer), self.words.sep]
        given, labels = mask(ids, list(range(1, len(ids))), self.words, draw, 1.0)
        return Sequence(given, self.words.vqa_prompt(self.words.ids(question)), labels, "answer")


def padded(rows: list[Ids], pad: int) -> Tensor:
    """(R, longest)."""
    import torch

    longest = max(len(row) for row in rows)
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def stack(items: list[list[Sequence]], pad: int) -> dict[str, dict[str, Tensor]]:
    """Sequences per picture -> task -> `target`, `prompt`, `labels`: (B, Q, …), prompts (B, 1, …) if all are one."""
    return {task: stack_task([[one for one in item if one.task == task] for item in items], pad)
            for task in dict.fromkeys(sequence.task for sequence in items[0])}  # fmt: skip


def stack_task(items: list[list[Sequence]], pad: int) -> dict[str, Tensor]:
    """Sequences of one task per picture -> `target`, `prompt`, `labels`, as in `stack`."""
    flat, count = [sequence for item in items for sequence in item], (len(items), len(items[0]))
    parts = {name: padded([getattr(sequence, name) for sequence in flat], fill).unflatten(0, count)
             for name, fill in (("target", pad), ("prompt", pad), ("labels", IGNORED))}  # fmt: skip
    if all(one.prompt == item[0].prompt for item in items for one in item):
        parts["prompt"] = parts["prompt"][:, :1].contiguous()
    return parts


def generator_collate(
    maker: Maker, scenes: list[Scene], images: np.ndarray, settings: dict[str, Any], seed: int
) -> Callable[[list[int]], dict[str, Any]]:
    """Item numbers -> a batch: per picture one region with its caption, and questions and answers about it.

    Args:
        settings: `steps`, `batch`, and numbers per region: `questions` to ask, `answers` to give (cheap, since all
            about a region share their prompt). In the first `answer_steps` steps only answers are trained on, `first`
            of them per region: with three tasks from the start none learned to look at the box. Of those the first
            `simple_steps` are about existence alone, as in `filter_collate`.
    """
    order = epochs(len(scenes), settings["steps"] * settings["batch"], seed)

    def collate(items: list[int]) -> dict[str, Any]:
        draw = random.Random(f"jade/generator/{seed}/{items[0]}")
        numbers = [order[item] for item in items]
        step = items[0] // settings["batch"]
        early, simple = step < settings["answer_steps"], step < settings["simple_steps"]
        count = (0, settings["first"]) if early else (settings["questions"], settings["answers"])
        made = [_about(maker, scenes[n], *count, simple, draw) for n in numbers]
        batch: dict[str, Any] = stack([sequences[early:] for sequences, _ in made], maker.words.pad)
        batch["pixels"] = pixels(images[numbers])
        if maker.shape.region:
            batch["region"] = regions([box for _, box in made], images.shape[1])
        return batch

    return collate


def _about(
    maker: Maker, scene: Scene, questions: int, answers: int, simple: bool, draw: random.Random
) -> tuple[list[Sequence], Corners]:
    """Caption, questions and answers of one region, and its box."""
    thing = draw.choice(scene.objects)
    phrase, box = language.phrase(thing, draw), loosened(thing.box, draw)
    kinds = ("yes", "no") * (answers // 2) if simple else types_in_turn(max(questions, answers), draw)
    said = [language.ask(scene, thing, "exist", draw, yes=kind == "yes") if simple else
            language.ask_type(scene, thing, kind, draw) for kind in kinds]  # fmt: skip
    asked = [maker.question(one, box, phrase, draw) for one in said[:questions]]
    answered = [maker.answer(one, box, phrase, draw) for one in said[:answers]]
    return [maker.caption(box, phrase, draw), *asked, *answered], box


def types_in_turn(count: int, draw: random.Random) -> list[str]:
    """`count` types, all of them before one comes again."""
    return [kind for _ in range(-(-count // len(TYPES))) for kind in draw.sample(TYPES, len(TYPES))][:count]


def loosened(box: Corners, draw: random.Random) -> Corners:
    """A box as a hurried annotator draws it, within the picture.

    Coordinates that training never shows are words without a meaning: a generator trained on exact boxes knew only
    two thirds of those that a detector gives.
    """
    return tuple(min(max(value + draw.randint(-LOOSE, LOOSE), 0), SIDE) for value in box)


def filter_collate(
    maker: Maker, scenes: list[Scene], features: Tensor, settings: dict[str, Any], seed: int
) -> Callable[[list[int]], dict[str, Any]]:
    """Item numbers -> a batch of questions without boxes.

    Args:
        features: (pictures, N + 1, 2 W) of the frozen CLIP.
        settings: `steps`, `batch`, `questions` (per picture), `absent`: share of questions that were asked about
            another picture and have no sense here; the answer to those is `absent`. In the first `simple_steps` steps
            all ask whether a thing is there: among other questions that was not learned in three times as many.
    """
    order = epochs(len(scenes), settings["steps"] * settings["batch"], seed)

    def collate(items: list[int]) -> dict[str, Any]:
        draw = random.Random(f"jade/filter/{seed}/{items[0]}")
        numbers = [order[item] for item in items]
        if items[0] < settings["simple_steps"] * settings["batch"]:
            asked = [_existence(scenes[n], settings["questions"], draw) for n in numbers]
            made = [[maker.vqa(one.question, one.answer, draw) for one in some] for some in asked]
        else:
            made = [[_one_vqa(maker, scenes, n, settings["absent"], draw) for _ in range(settings["questions"])]
                    for n in numbers]  # fmt: skip
        return {**stack(made, maker.words.pad), "features": features[numbers]}

    return collate


def _existence(scene: Scene, count: int, draw: random.Random) -> list[Said]:
    """Whether a thing is there, yes and no in turn."""
    return [language.ask(scene, draw.choice(scene.objects), "exist", draw, yes=bool(n % 2)) for n in range(count)]


def _one_vqa(maker: Maker, scenes: list[Scene], number: int, absent: float, draw: random.Random) -> Sequence:
    scene = scenes[number]
    if draw.random() < absent and (question := mismatched(scene, scenes, draw)):
        return maker.vqa(question, ABSENT, draw)
    said = language.ask_type(scene, draw.choice(scene.objects), draw.choice(TYPES), draw)
    return maker.vqa(said.question, said.answer, draw)


def mismatched(scene: Scene, scenes: list[Scene], draw: random.Random, tries: int = 8) -> str | None:
    """A question about another picture that takes for granted what this one does not have."""
    for _ in range(tries):
        other = draw.choice(scenes)
        said = language.ask_type(other, draw.choice(other.objects), draw.choice(TYPES), draw)
        if judge(scene, said.question, said.answer) == PRESUPPOSITION:
            return said.question
    return None
