"""What the shards of the study compute: models trained, then texts made about blocks of pictures, answered and judged.

Filters differ in one thing each: `independent` has other first weights and other pictures than the generator;
`same pictures` the independent one's first weights but the generator's pictures; `own weights` goes on from the
generator. All have the same lessons, in as many steps. All have learned to say `absent` of questions that make no
sense; whether they may is decided when they are asked: the paper's filter always commits itself, so that the word is
forbidden but in the arm `may refuse`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import engine, store
from mmlib.formats.reading import Skips
from mmlib.jade import corpora, dataset, detect, filtering, generate, language, precision, training, truth, weights
from mmlib.jade.batches import Maker
from mmlib.jade.model import Jade, Shape
from mmlib.jade.tokens import Words
from mmlib.world.scenes import SIDE as SIDE

if TYPE_CHECKING:
    import numpy as np

    from mmlib.world.render import Renderer
    from mmlib.world.scenes import Scene

Settings = dict[str, Any]
FILTERS = ("independent", "same pictures", "own weights")
SETS = ("annotated", "web")  # pictures as in training (but others), and shifted ones
CONFIGURATIONS = ("agreed", "existence")  # of the data set: as released, and with the check of existence
EXIST = language.KINDS["exist"].wording


def run(seeds: list[int], settings: Settings, stage: str, key: Settings, root: Path) -> list[dict[str, Any]]:
    """Per seed: curves, examinations of the filters, and the judged rows of both sets. Resumable: see `engine`.

    A killed run loses the models in training and the blocks of pictures in work.
    """
    do = {"stage": stage, "key": key, "root": root}
    keep = partial(weights.stored, root=root, folder=f".scratch/shards/{stage}")
    first = [
        _training(seed, name, settings) for seed in seeds for name in ("generator", "independent", "same pictures")
    ]
    models = keep(engine.shard_map(train, first, **do), first)
    last = [_training(seed, "own weights", settings, models[seed, "generator"]["weights"]) for seed in seeds]
    models |= keep(engine.shard_map(train, last, **do), last)
    jobs = [_job(seed, name, models, settings) for seed in seeds for name in SETS]
    made = generate.run_shards(make, jobs, settings["together"], **do)
    return [_joined(seed, models, made[number * len(SETS) :]) for number, seed in enumerate(seeds)]


def _training(seed: int, name: str, settings: Settings, start: Settings | None = None) -> dict[str, Any]:
    return {"name": f"seed{seed} {name}", "seed": seed, "model": name, "settings": settings, "start": start}


def _job(seed: int, name: str, models: dict[tuple[int, str], dict], settings: Settings) -> dict[str, Any]:
    stored = {model: models[seed, model]["weights"] for model in ("generator", *FILTERS)}
    pictures = [scene.id for scene in drawn(name, settings["pictures"], settings["data_seed"])]
    return {"name": f"seed{seed} {name}", "seed": seed, "set": name, "weights": stored, "settings": settings,
            "pictures": pictures}  # fmt: skip


def _joined(seed: int, models: dict[tuple[int, str], dict], made: list[dict[str, Any]]) -> dict[str, Any]:
    """One seed's results, from the models' and from the blocks'."""
    own = {model: result for (one, model), result in models.items() if one == seed}
    sets = {}
    for name, pictures in zip(SETS, made, strict=False):
        parts = list(pictures.values())
        sets[name] = {"pictures": list(pictures), "rows": [part["rows"] for part in parts],
                      "captions": [part["captions"] for part in parts], "rules": filtering.summed(parts, "rules"),
                      "skips": dict(sum((Counter(part["skips"]) for part in parts), Counter()))}  # fmt: skip
    return {"seed": seed, "curves": {model: result["curve"] for model, result in own.items()},
            "exam": {model: own[model]["exam"] for model in FILTERS}, "sets": sets}  # fmt: skip


def train(shard: dict[str, Any]) -> dict[str, Any]:
    """Learning curve, weights as text and, of a filter, its examination: `{seed, model, settings, start}`."""
    from mmlib.models.clip import open_clip

    root, name, seed, settings = store.project_root(), shard["model"], shard["seed"], shard["settings"]
    clip, draw = open_clip(root / weights.CLIP), renderer(root)
    scenes = corpora.draw_part("filter" if name == "independent" else "generator", settings["scenes"], seed)
    seen = corpora.pictures(draw, scenes)
    if name == "generator":
        model, curve = training.train_generator(
            clip, Maker(Words(), Shape()), scenes, seen, generator_settings(settings), seed
        )
        return {"curve": curve, "weights": weights.as_text(model)}
    blind = Maker(Words(), training.FILTER_SHAPE)
    first = seed + 1000  # other first weights than the generator's
    start = shard["start"] and weights.opened(root, shard["start"], Shape())
    model, curve = training.train_filter(clip, blind, scenes, seen, filter_settings(settings), first, start=start)
    return {"curve": curve, "weights": weights.as_text(model), "exam": _exams(model, blind, draw, settings, seed)}


@cache
def renderer(root: Path) -> Renderer:
    """Draws scenes."""
    from mmlib.world.render import Renderer

    return Renderer(root / "data")


def generator_settings(settings: Settings) -> Settings:
    """Those of `batches.generator_collate` and of the optimizer."""
    names = ("steps", "batch", "questions", "answers", "answer_steps", "first", "align_steps", "learning_rate",
             "muon_learning_rate")  # fmt: skip
    return {**{name: settings[name] for name in names}, "simple_steps": settings["generator_simple_steps"]}


def filter_settings(settings: Settings) -> Settings:
    """The same lessons in as many steps for every filter."""
    names = ("align_steps", "learning_rate", "muon_learning_rate", "batch", "absent", "simple_steps")
    shared = {name: settings[name] for name in names}
    return {**shared, "steps": settings["filter_steps"], "questions": settings["filter_questions"]}


def pictures_of(name: str, count: int, renderer: Renderer, data_seed: int) -> tuple[list[Scene], np.ndarray]:
    """Scenes of a set and their pictures: the same for every seed of the models."""
    scenes = drawn(name, count, data_seed)
    return scenes, drawn_pictures(name, scenes, renderer)


@cache
def drawn(name: str, count: int, data_seed: int) -> list[Scene]:
    """Scenes of a set."""
    return corpora.draw_part("base" if name == "annotated" else "web", count, data_seed)


def drawn_pictures(name: str, scenes: list[Scene], renderer: Renderer) -> np.ndarray:
    """Their pictures, each the same whatever others are drawn."""
    return corpora.pictures(renderer, scenes, corpora.Clutter() if name == "web" else None)


def make(shard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A block of pictures: generate, answer every question with every filter, judge.

    Args:
        shard: `seed`, `set`, `pictures` (their names), `weights` and `settings`.
    Returns:
        Picture -> `rows` of questions, `captions`, `rules` (what the first ones kept) and `skips`.
    """
    root, settings, names = store.project_root(), shard["settings"], shard["pictures"]
    every = drawn(shard["set"], settings["pictures"], settings["data_seed"])
    scenes = [scene for scene in every if scene.id in set(names)]
    images = drawn_pictures(shard["set"], scenes, renderer(root))
    models = {name: weights.opened(root, stored, Shape() if name == "generator" else training.FILTER_SHAPE)
              for name, stored in shard["weights"].items()}  # fmt: skip
    skips = [Skips() for _ in scenes]
    boxed = [generate.with_boxes([scene], image[None], detect.Oracle(), skip)[0]
             for scene, image, skip in zip(scenes, images, skips, strict=True)]  # fmt: skip
    maker = Maker(Words(), Shape())
    made = generate.generate(models.pop("generator"), maker, boxed, shard["seed"])
    rows, captions, tables = _judged(scenes, made)
    _ask_filters(rows, captions, images, models, maker)
    return {scene.id: {"rows": rows[n], "captions": captions[n], "rules": tables[n], "skips": dict(skips[n].counts)}
            for n, scene in enumerate(scenes)}  # fmt: skip


def _judged(scenes: list[Scene], made: dict[str, list[dict]]) -> tuple[list, list, list]:
    """Per picture: rows that the first rules keep, with their verdicts; captions with theirs; counts of the rules."""
    rows, captions, tables = [], [], []
    for scene in scenes:
        counts = filtering.Counts()
        raw = [(scene.id, dataset.questions_of(made[scene.id]))]
        [(_, kept)] = filtering.stream(raw, [filtering.unique(), filtering.sanity()], counts)
        rows.append(precision.judged(scene, kept))
        captions.append([{"box": box["box"], "caption": box["caption"],
                          "right": truth.caption_right(scene, tuple(box["box"]), box["caption"])}
                         for box in made[scene.id]])  # fmt: skip
        tables.append(counts.table())
    return rows, captions, tables


def _ask_filters(rows: list, captions: list, images: np.ndarray, models: dict[str, Jade], maker: Maker) -> None:
    for arm, model in models.items():
        _answered(rows, images, model, maker, arm)
    _answered(rows, images, models["independent"], maker, "may refuse", refuse=True)
    _exist(rows, images, models["independent"], maker, lambda row: noun_of(row["question"], row["answer"]))
    _exist(captions, images, models["independent"], maker, lambda row: noun_of("", row["caption"]))


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


def _exams(model: Jade, maker: Maker, renderer: Renderer, settings: Settings, seed: int) -> dict[str, list[list[int]]]:
    """Set -> picture -> type (in order of `language.TYPES`): is the answer to a true question right?"""
    table = {}
    for name in SETS:
        scenes, images = pictures_of(name, settings["pictures"], renderer, settings["data_seed"] + 1)
        asked = training.exam(scenes, seed, len(language.TYPES))
        said = generate.answer_questions(model, maker, images, [[one.question for one in some] for some in asked])
        table[name] = [[int(truth.judge(scene, one.question, text) == truth.RIGHT)
                        for one, (text, _) in zip(questions, answers, strict=True)]
                       for scene, questions, answers in zip(scenes, asked, said, strict=True)]  # fmt: skip
    return table


def choose(result: dict[str, Any], seed: int, configuration: str) -> tuple[list[tuple], list[dict[str, Any]]]:
    """The data set of one seed for `dataset.export`, and how much each rule kept.

    A picture is named by its address, as in CC3M-QA-DC.

    Args:
        configuration: `agreed` has the released rules; `existence` leaves out, too, what the filter denies, of
            questions and of dense captions.
    """
    part, counts = result["sets"]["web"], filtering.Counts()
    checked = configuration == "existence"
    named = [(image_id(name), rows) for name, rows in zip(part["pictures"], part["rows"], strict=True)]
    rules = [filtering.consistency(), *([filtering.existence()] if checked else [])]
    agreed = list(filtering.stream(named, rules, counts))
    quota = [filtering.binary_quota(filtering.balance(agreed), seed)]
    kept = dict(filtering.stream(agreed, quota, counts))
    dense = [[row for row in rows if not (checked and filtering.denied(row))] for rows in part["captions"]]
    return [
        (name, kept[name], dataset.captions_of(boxes)) for (name, _), boxes in zip(named, dense, strict=True)
    ], counts.table()


def image_id(name: str) -> str:
    """Number of a picture by its address, as in CC3M-QA-DC."""
    from mmlib.formats.cc3m import WebImage

    return WebImage("", corpora.URL.format(name=name)).img_id
