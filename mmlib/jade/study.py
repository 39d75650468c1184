"""One seed of the study: train a generator and its filters, make data about two sets of pictures, judge every question.

Filters differ in one thing each: `independent` has other first weights and other pictures than the generator;
`same pictures` the independent one's first weights but the generator's pictures; `own weights` goes on from the
generator. All have learned to say `absent` of questions that make no sense; whether they may is decided when they are
asked: the paper's filter always commits itself, so that the word is forbidden but in the arm `may refuse`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.formats.reading import Skips
from mmlib.jade import corpora, dataset, detect, filtering, generate, language, precision, training, truth
from mmlib.jade.batches import Maker
from mmlib.jade.model import Jade, Shape
from mmlib.jade.tokens import Words
from mmlib.world.scenes import SIDE as SIDE

if TYPE_CHECKING:
    import numpy as np
    from transformers import CLIPModel

    from mmlib.world.render import Renderer
    from mmlib.world.scenes import Scene

Settings = dict[str, Any]
FILTERS = ("independent", "same pictures", "own weights")
SETS = ("annotated", "web")  # pictures as in training (but others), and shifted ones
CLIP = "results/world/clip"
EXIST = language.KINDS["exist"].wording


def run_seed(shard: dict[str, Any]) -> dict[str, Any]:
    """`{seed, settings}` -> curves, examinations of the filters, and the judged rows of both sets."""
    from mmlib.models.clip import open_clip

    settings, seed = shard["settings"], shard["seed"]
    root = store.project_root()
    renderer, clip = _renderer(root), open_clip(root / CLIP)
    maker = Maker(Words(), Shape())
    own = corpora.draw_part("generator", settings["scenes"], seed)
    seen = corpora.pictures(renderer, own)
    generator, curve = training.train_generator(clip, maker, own, seen, generator_settings(settings), seed)
    models, curves = _filters(clip, generator, own, seen, renderer, settings, seed)
    sets = {name: _set(generator, models, maker, name, renderer, settings, seed) for name in SETS}
    return {"seed": seed, "curves": {"generator": curve, **curves},
            "exam": _exams(models, maker, renderer, settings, seed), "sets": sets}  # fmt: skip


@cache
def _renderer(root: Path) -> Renderer:
    from mmlib.world.render import Renderer

    return Renderer(root / "data")


def generator_settings(settings: Settings) -> Settings:
    """Those of `batches.generator_collate` and of the optimizer."""
    names = ("steps", "batch", "questions", "answers", "answer_steps", "first", "simple_steps", "align_steps",
             "learning_rate", "muon_learning_rate")  # fmt: skip
    return {name: settings[name] for name in names}


def filter_settings(settings: Settings, name: str) -> Settings:
    """What goes on from the generator needs fewer steps, and no lessons in existence."""
    again = name == "own weights"
    shared = {key: settings[key] for key in ("align_steps", "learning_rate", "muon_learning_rate", "batch", "absent")}
    return {**shared, "steps": settings["own_steps" if again else "filter_steps"],
            "simple_steps": 0 if again else settings["simple_steps"],
            "questions": settings["filter_questions"]}  # fmt: skip


def _filters(
    clip: CLIPModel, generator: Jade, own: list[Scene], seen: np.ndarray, renderer: Renderer, settings: Settings,
    seed: int,
) -> tuple[dict[str, Jade], dict[str, list]]:  # fmt: skip
    blind = Maker(Words(), training.FILTER_SHAPE)
    others = corpora.draw_part("filter", settings["scenes"], seed)
    pictures = corpora.pictures(renderer, others)
    models, curves = {}, {}
    for name in FILTERS:
        data = (own, seen) if name in ("same pictures", "own weights") else (others, pictures)
        start = generator if name == "own weights" else None
        first = seed + 1000  # other first weights than the generator's
        models[name], curves[name] = training.train_filter(
            clip, blind, *data, filter_settings(settings, name), first, start=start
        )
    return models, curves


def pictures_of(name: str, count: int, renderer: Renderer, data_seed: int) -> tuple[list[Scene], np.ndarray]:
    """Scenes of a set and their pictures: the same for every seed of the models."""
    scenes = corpora.draw_part("base" if name == "annotated" else "web", count, data_seed)
    return scenes, corpora.pictures(renderer, scenes, corpora.Clutter() if name == "web" else None)


def _set(
    generator: Jade, models: dict[str, Jade], maker: Maker, name: str, renderer: Renderer, settings: Settings, seed: int
) -> dict[str, Any]:
    """Generate about a set of pictures, answer every question with every filter, judge."""
    scenes, images = pictures_of(name, settings["pictures"], renderer, settings["data_seed"])
    skips, made = Skips(), {}
    boxed = generate.with_boxes(scenes, images, detect.Oracle(), skips)
    for start in range(0, len(boxed), settings["together"]):
        made.update(generate.generate(generator, maker, boxed[start : start + settings["together"]], seed))
    rules, counts = [filtering.unique(), filtering.sanity()], filtering.Counts()
    raw = {scene.id: dataset.questions_of(made[scene.id]) for scene in scenes}
    rows = dict(filtering.stream(raw.items(), rules, counts))
    kept = [precision.judged(scene, rows[scene.id]) for scene in scenes]
    for arm, model in models.items():
        _answered(kept, images, model, maker, arm)
    _answered(kept, images, models["independent"], maker, "may refuse", refuse=True)
    captions = [[{"box": box["box"], "caption": box["caption"],
                  "right": truth.caption_right(scene, tuple(box["box"]), box["caption"])} for box in made[scene.id]]
                for scene in scenes]  # fmt: skip
    _exist(kept, images, models["independent"], maker, lambda row: noun_of(row["question"], row["answer"]))
    _exist(captions, images, models["independent"], maker, lambda row: noun_of("", row["caption"]))
    return {"pictures": [scene.id for scene in scenes], "rows": kept, "captions": captions, "rules": counts.table(),
            "skips": dict(skips.counts)}  # fmt: skip


def _answered(
    kept: list[list[dict]], images: np.ndarray, model: Jade, maker: Maker, arm: str, refuse: bool = False
) -> None:
    asked = [[row["question"] for row in rows] for rows in kept]
    answers = generate.answer_questions(model, maker, images, asked, refuse=refuse)
    for rows, said in zip(kept, answers, strict=True):
        for row, (text, prob) in zip(rows, said, strict=True):
            row.setdefault("filter", {})[arm] = [text, round(prob, 6)]


def _exist(kept: list[list[dict]], images: np.ndarray, model: Jade, maker: Maker, noun: Callable[[dict], str]) -> None:
    """Ask a filter whether the thing is there that a row is about: `exists` is its answer, empty if nothing is."""
    nouns = [[noun(row) for row in rows] for rows in kept]
    asked = [[EXIST.format(noun=one) for one in some if one] for some in nouns]
    answers = generate.answer_questions(model, maker, images, asked)
    for rows, some, said in zip(kept, nouns, answers, strict=True):
        given = iter(said)
        for row, one in zip(rows, some, strict=True):
            row["exists"] = next(given)[0] if one else ""


def noun_of(question: str, answer: str) -> str:
    """The first noun of the question, else of the answer; empty where neither has one.

    Of "is there a dog ?" - "no" nothing is claimed to be there.
    """
    understood = language.understand(question)
    if understood and understood[0] == "exist" and answer != "yes":
        return ""
    return next((word for word in (question + " " + answer).split() if word in language.known()["noun"]), "")


def _exams(
    models: dict[str, Jade], maker: Maker, renderer: Renderer, settings: Settings, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Share of right answers of every filter to true questions about each set, by type."""
    table: dict[str, dict[str, dict[str, float]]] = {arm: {} for arm in models}
    for name in SETS:
        scenes, images = pictures_of(name, settings["pictures"], renderer, settings["data_seed"] + 1)
        asked = training.exam(scenes, seed, len(language.TYPES))
        for arm, model in models.items():
            said = generate.answer_questions(model, maker, images, [[one.question for one in some] for some in asked])
            table[arm][name] = _shares(scenes, asked, said)
    return table


def _shares(scenes: list[Scene], asked: list[list[language.Said]], said: list[list[tuple[str, float]]]) -> dict:
    hits: dict[str, list[bool]] = {kind: [] for kind in language.TYPES}
    for scene, questions, answers in zip(scenes, asked, said, strict=True):
        for one, (text, _) in zip(questions, answers, strict=True):
            hits[one.type].append(truth.judge(scene, one.question, text) == truth.RIGHT)
    return {kind: round(sum(right) / len(right), 6) for kind, right in hits.items()}


def shards(seeds: list[int], settings: Settings) -> list[dict[str, Any]]:
    """A shard per seed."""
    return [{"name": f"seed{seed}", "seed": seed, "settings": settings} for seed in seeds]


def choose(result: dict[str, Any], seed: int) -> tuple[list[tuple], list[dict[str, Any]]]:
    """The data set of one seed for `dataset.export`, by the released rules; and how much each rule kept.

    A picture is named by its address, as in CC3M-QA-DC.
    """
    part = result["sets"]["web"]
    named = [(image_id(name), rows, captions) for name, rows, captions in
             zip(part["pictures"], part["rows"], part["captions"], strict=True)]  # fmt: skip
    counts = filtering.Counts()
    agreed = list(filtering.stream(((name, _flat(rows)) for name, rows, _ in named), [filtering.consistency()], counts))
    quota = [filtering.binary_quota(filtering.balance(agreed), seed)]
    kept = dict(filtering.stream(agreed, quota, counts))
    return [(name, kept[name], dataset.captions_of(boxes)) for name, _, boxes in named], counts.table()


def image_id(name: str) -> str:
    """Number of a picture by its address, as in CC3M-QA-DC."""
    from mmlib.formats.cc3m import WebImage

    return WebImage("", corpora.URL.format(name=name)).img_id


def _flat(rows: list[dict]) -> list[dict]:
    return [{**row, "filter_answer": row["filter"]["independent"][0]} for row in rows]
