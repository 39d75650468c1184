"""The world in the public layouts, so that a study's loaders are the ones that real data would use.

Pictures are numbered by their place in the list of scenes. Everything is exact, except alt-text, which is as careless
as it is asked to be.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from mmlib.formats import cc3m, coco, visual_genome, vqa
from mmlib.world import language
from mmlib.world.questions import Question, ask, wordings
from mmlib.world.scenes import SIDE, Scene

CAPTIONS = 5  # a picture, as in COCO
ANSWERS = 10  # a question, as in VQA v2: here all ten agree
QUESTIONS = 3  # a picture, asked for; scenes that have no answer to some kind get fewer
VQA_KINDS = ("exist", "count", "color", "where", "what", "size", "background", "sign")
URL = "https://emoji.invalid/"  # a name that no machine can ever have


def write_coco(path: Path, scenes: list[Scene], seed: int, held_out: bool = False) -> int:
    """COCO captions, five for every picture; the number of captions."""
    images = [coco.CocoImage(number, f"{scene.id}.png", SIDE, SIDE) for number, scene in enumerate(scenes)]
    captions = []
    for image, scene in zip(images, scenes, strict=True):
        texts = [language.caption(scene, _draw(seed, scene, turn), held_out) for turn in range(CAPTIONS)]
        captions += [coco.CocoCaption(CAPTIONS * image.id + n, image.id, text) for n, text in enumerate(texts)]
    coco.write_captions(path, images, captions)
    return len(captions)


def write_vqa(folder: Path, scenes: list[Scene], split: str, seed: int, held_out: bool = False) -> int:
    """VQA v2's pair of files; the number of questions."""
    pairs = []
    for image_id, scene in enumerate(scenes):
        for question in _questions(scene, VQA_KINDS, seed, held_out):
            number, kind = len(pairs), _answer_type(question)
            made = vqa.VqaQuestion(number, image_id, question.text)
            answers = (question.answer,) * ANSWERS
            opening = _opening(question)
            pairs.append((made, vqa.VqaAnnotation(number, image_id, opening, kind, question.answer, answers)))
    vqa.write(folder, pairs, split)
    return len(pairs)


def write_genome(folder: Path, scenes: list[Scene], seed: int) -> tuple[int, int]:
    """Visual Genome's `region_descriptions.json` and `question_answers.json`; the numbers of both."""
    regions, questions = [], []
    for image_id, scene in enumerate(scenes):
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            corner = (x0, y0, x1 - x0, y1 - y0)
            regions.append(visual_genome.Region(len(regions), image_id, language.phrase(thing), *corner))
        for asked in _questions(scene, VQA_KINDS, seed, held_out=False):
            questions.append(visual_genome.GenomeQuestion(len(questions), image_id, asked.text, asked.answer))
    visual_genome.write_regions(folder / "region_descriptions.json", regions)
    visual_genome.write_questions(folder / "question_answers.json", questions)
    return len(regions), len(questions)


def write_web(path: Path, scenes: list[Scene], seed: int, noise: float) -> int:
    """Conceptual Captions' TSV: one alt-text a picture, a share `noise` of them wrong or off-topic; the number."""
    images = [
        cc3m.WebImage(language.alt_text(scene, _draw(seed, scene, 0), noise).text, f"{URL}{scene.id}.png")
        for scene in scenes
    ]
    cc3m.write_tsv(path, images)
    return len(images)


def _draw(seed: int, scene: Scene, turn: int) -> random.Random:
    """Of the scene's own name: what is said about a picture does not depend on the others in the file."""
    return random.Random(f"export/{seed}/{scene.id}/{turn}")


def _questions(scene: Scene, kinds: tuple[str, ...], seed: int, held_out: bool) -> Iterator[Question]:
    draw = _draw(seed, scene, -1)
    for kind in draw.sample(kinds, QUESTIONS):
        if question := ask(kind, scene, draw, held_out):
            yield question


def _answer_type(question: Question) -> str:
    if question.answer in ("yes", "no"):
        return "yes/no"
    return "number" if question.answer in language.DIGITS else "other"


def _opening(question: Question) -> str:
    """VQA v2's `question_type`: the wording up to its first gap."""
    patterns = [w for part in wordings()[question.kind].values() for w in part]
    openings = sorted((w.partition("{")[0].strip(" ?.") for w in patterns), key=len, reverse=True)
    return next((opening for opening in openings if question.text.startswith(opening)), "none of the above")
