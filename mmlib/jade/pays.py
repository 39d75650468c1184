"""Does the data set pay? One start, several pre-trainings on pictures from the web, then the same tuning and test.

Every arm sees the same pictures in the same order for as many steps; arms differ in what is said about a picture. All
have its alt-text. The start has aligned words and pictures and knows existence, as generator and filters do at first:
from nothing none of the arms would learn to look within these steps. Tuning and test ask in wordings that no annotated
and no generated question has, about other scenes of the same shifted kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.evidence import Evidence
from mmlib.jade import arms, batches, corpora, dataset, language, study, training, truth, weights
from mmlib.jade.align import align
from mmlib.jade.batches import Maker
from mmlib.jade.model import Jade, Shape
from mmlib.jade.tokens import Words
from mmlib.models.clip import epochs
from mmlib.models.fit import fit

if TYPE_CHECKING:
    from torch import Tensor

    from mmlib.world.scenes import Scene

Settings = dict[str, Any]
Row = dict[str, Any]
STUDY, STAGE = "jade", "jade-pays"
SHAPE = Shape(region=False, places=True)  # a box only as words: the features are made once
DENSE, ASKED = 2, 4  # dense captions and questions of a picture in a step
# arm -> (whose questions, dense captions)
ARMS: dict[str, tuple[str | None, bool]] = {
    "captions": (None, False), "+DC": (None, True), "+QA": ("consistency", False), "+QA+DC": ("consistency", True),
    "random QA": ("random", False), "existence QA": ("existence", False), "shuffled QA": ("shuffled", False),
    "corrected QA": ("corrected", False), "+1 QA": ("one", False),
}  # fmt: skip
METRICS = {"vqa": True, "nats": False, "vqa_before": True}  # name -> whether higher is better


def questions(name: str, rows: list[list[Row]], scenes: list[Scene], seed: int) -> list[list[tuple[str, str]]]:
    """(question, answer) of each picture under an arm's name.

    `shuffled`: what agreement keeps, each picture's at the next one; `corrected`: what it keeps, with a right answer in
    place of the one given, without what has none; `one`: one of what it keeps.
    """
    kept = arms.keep(name if name in arms.ARMS else "consistency", rows, seed)
    pairs = [[(row["question"], row["answer"]) for row in some] for some in kept]
    if name == "shuffled":
        return pairs[1:] + pairs[:1]
    if name == "one":
        return [some[:1] for some in pairs]
    if name == "corrected":
        return [list(_corrected(scene, some)) for scene, some in zip(scenes, pairs, strict=True)]
    return pairs


def _corrected(scene: Scene, pairs: list[tuple[str, str]]) -> Any:
    for question, answer in pairs:
        right = truth.right_answers(scene, question)
        if right:
            yield question, answer if answer in right else min(right)


def run_seed(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed: the start, then every arm from it. `{seed, rows, captions, settings}` -> arm -> curve and scores."""
    from mmlib.models.clip import open_clip

    settings, seed, root = shard["settings"], shard["seed"], store.project_root()
    renderer, maker = study.renderer(root), Maker(Words(), SHAPE)
    model = Jade(open_clip(root / weights.CLIP), len(maker.words), maker.words.pad, SHAPE, seed + 2000)
    corpus = _corpus(shard, model, renderer)
    parts = {part: _part(part, model, renderer, settings) for part in ("tuning", "test")}
    curve = _start(model, maker, renderer, settings, seed)
    first, results = {name: value.clone() for name, value in model.state_dict().items()}, {}
    for arm, (whose, dense) in ARMS.items():
        model.load_state_dict(first)
        texts = corpus["questions"][whose] if whose else None, corpus["dense"] if dense else None
        results[arm] = _one_arm(model, maker, corpus, texts, parts, settings, seed)
    return {"seed": seed, "start": curve, "arms": results, "pictures": len(corpus["usable"])}


def _corpus(shard: dict[str, Any], model: Jade, renderer: Any) -> Settings:
    """Pictures from the web with all that any arm says of them; `usable`: those of which every arm has a text."""
    scenes, images = study.pictures_of("web", len(shard["rows"]), renderer, shard["settings"]["data_seed"])
    names = [whose for whose, _ in ARMS.values() if whose]
    asked = {whose: questions(whose, shard["rows"], scenes, shard["seed"]) for whose in names}
    dense = [dataset.captions_of(boxes) for boxes in shard["captions"]]
    usable = [n for n in range(len(scenes)) if dense[n] and all(texts[n] for texts in asked.values())]
    return {"scenes": scenes, "features": training.frozen_features(model, images), "questions": asked, "dense": dense,
            "usable": usable}  # fmt: skip


def _part(part: str, model: Jade, renderer: Any, settings: Settings) -> tuple[list[Scene], Tensor]:
    """Scenes of a downstream part and their features: the same for every seed."""
    scenes = corpora.draw_part(part, settings[part], settings["data_seed"])
    return scenes, training.frozen_features(model, corpora.pictures(renderer, scenes, corpora.Clutter()))


def _one_arm(
    model: Jade, maker: Maker, corpus: Settings, texts: tuple, parts: dict, settings: Settings, seed: int
) -> dict[str, Any]:
    """Pre-training, test in the wordings of the data, tuning, test in those of the tuning."""
    curve = _fit(model, _corpus_collate(maker, corpus, *texts, settings, seed), "steps", settings, seed)
    before = measure(model, maker, *parts["test"], settings["data_seed"], elsewhere=False)
    _fit(model, _tuning_collate(maker, *parts["tuning"], settings, seed), "tuning_steps", settings, seed)
    after = measure(model, maker, *parts["test"], settings["data_seed"], elsewhere=True)
    return {"curve": curve, "scores": {**after, "vqa_before": before["vqa"]}}


def _start(model: Jade, maker: Maker, renderer: Any, settings: Settings, seed: int) -> list[dict[str, float]]:
    """Words aligned with pictures, then existence, on annotated pictures that generator and filters never saw."""
    scenes = corpora.draw_part("base", settings["scenes"], seed + 1)
    features = training.frozen_features(model, corpora.pictures(renderer, scenes))
    align(model, maker.words, scenes, features, settings["align_steps"], seed)
    lessons = {**settings, "steps": settings["simple_steps"], "questions": 8, "absent": 0.0}
    collate = batches.filter_collate(maker, scenes, features, lessons, seed)
    return training.fit_lessons(model, collate, "start", lessons, seed)


def _fit(model: Jade, collate: Callable, steps: str, settings: Settings, seed: int) -> list[dict[str, float]]:
    model.train()
    model.look.vision.eval()
    model.tokens.project.requires_grad_(True)
    rates = {name: settings[name] for name in ("learning_rate", "muon_learning_rate")}
    return fit(model, collate, name=steps, steps=settings[steps], batch=settings["batch"], **rates, seed=seed)


def _corpus_collate(
    maker: Maker, corpus: Settings, asked: list | None, said: list | None, settings: Settings, seed: int
) -> Callable[[list[int]], dict[str, Any]]:
    """Item numbers -> a batch about pictures from the web, in an order that no arm changes.

    Where filters kept nothing that all arms could use, all arms have the alt-text alone.
    """
    places = corpus["usable"] or range(len(corpus["scenes"]))
    asked, said = (texts if corpus["usable"] else None for texts in (asked, said))
    order = [places[n] for n in epochs(len(places), settings["steps"] * settings["batch"], seed)]
    alt = [corpora.web_image(scene).caption for scene in corpus["scenes"]]

    def collate(items: list[int]) -> dict[str, Any]:
        draw = random.Random(f"jade/pays/{seed}/{items[0]}")
        numbers = [order[item] for item in items]
        made = {"caption": [[maker.whole(alt[n], draw)] for n in numbers]}
        if asked:
            made["answer"] = [[maker.vqa(*draw.choice(asked[n]), draw) for _ in range(ASKED)] for n in numbers]
        if said:
            made["dense"] = [[maker.caption(*draw.choice(said[n]), draw) for _ in range(DENSE)] for n in numbers]
        parts = {task: batches.stack_task(sequences, maker.words.pad) for task, sequences in made.items()}
        return {**parts, "features": corpus["features"][numbers]}

    return collate


def _tuning_collate(
    maker: Maker, scenes: list[Scene], features: Tensor, settings: Settings, seed: int
) -> Callable[[list[int]], dict[str, Any]]:
    """Item numbers -> questions in the downstream wordings, types in turn, with the truth as the answer."""
    order = epochs(len(scenes), settings["tuning_steps"] * settings["batch"], seed)
    asked = _downstream(scenes, settings["data_seed"], settings["tuning_questions"], elsewhere=True)

    def collate(items: list[int]) -> dict[str, Any]:
        draw = random.Random(f"jade/tuning/{seed}/{items[0]}")
        numbers = [order[item] for item in items]
        made = [[maker.vqa(one.question, one.answer, draw) for one in draw.choices(asked[n], k=ASKED)] for n in numbers]
        return {"answer": batches.stack_task(made, maker.words.pad), "features": features[numbers]}

    return collate


def _downstream(scenes: list[Scene], seed: int, count: int, elsewhere: bool) -> list[list[language.Said]]:
    """`count` questions about each scene, the same for every arm and seed of the models; yes and no are as frequent."""
    draw, kinds = random.Random(f"jade/downstream/{seed}"), tuple(language.KINDS)
    return [[language.ask(scene, draw.choice(scene.objects), kinds[(i * count + j) % len(kinds)], draw,
                          yes=draw.random() < 0.5, elsewhere=elsewhere) for j in range(count)]
            for i, scene in enumerate(scenes)]  # fmt: skip


def measure(
    model: Jade, maker: Maker, scenes: list[Scene], features: Tensor, seed: int, elsewhere: bool
) -> dict[str, list[float]]:
    """Per scene over a question of each kind: share answered rightly, and nats, -ln of what right answers get together.

    Every answer of this world is one word: its probabilities stand behind the start of the answer.
    """
    import torch

    words, kinds = maker.words, len(language.KINDS)
    asked = _downstream(scenes, seed + 1, kinds, elsewhere)
    prompts = batches.padded([words.vqa_prompt(words.ids(one.question)) for some in asked for one in some], words.pad)
    target = torch.tensor([words.cls, words.mask]).expand(len(scenes), kinds, 2)
    with torch.inference_mode():
        h = model.eval().states(model.tokens(features[:, None]), target, prompts.unflatten(0, (len(scenes), kinds)))
        chances = model.logits(h[:, :, 1]).softmax(-1)  # (scenes, kinds, vocabulary)
    scores: dict[str, list[float]] = {"vqa": [], "nats": []}
    for scene, some, rows in zip(scenes, asked, chances, strict=True):
        right = [[words.number[answer] for answer in _right(scene, one)] for one in some]
        hits = [row.argmax().item() in ids for row, ids in zip(rows, right, strict=True)]
        nats = [-row[ids].sum().clamp_min(1e-9).log().item() for row, ids in zip(rows, right, strict=True)]
        scores["vqa"].append(round(sum(hits) / kinds, 6))
        scores["nats"].append(round(sum(nats) / kinds, 6))
    return scores


def _right(scene: Scene, said: language.Said) -> set[str]:
    """Every right answer: with two dogs, the place of either."""
    return language.KINDS[said.kind].answers(scene, dict(said.fields))


def as_evidence(results: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Every metric of every arm, a value per scene."""
    evidence = Evidence(STUDY, STAGE)
    evidence.units("scenes", [f"scene/{number:05d}" for number in range(settings["test"])], asked=settings["test"])
    for name, higher in METRICS.items():
        evidence.metric(name, units="scenes", higher_is_better=higher, floor=None)
    for result in results:
        for arm, made in result["arms"].items():
            for name in METRICS:
                evidence.add(name, arm=arm, seed=result["seed"], values=made["scores"][name])
    return evidence.as_dict()


def shards(made: dict[str, Any], settings: Settings) -> list[dict[str, Any]]:
    """A shard per seed, with what that seed's generator made and its filters answered about pictures from the web."""
    return [{"name": f"seed{result['seed']}", "seed": result["seed"], "settings": settings,
             "rows": result["sets"]["web"]["rows"], "captions": result["sets"]["web"]["captions"]}
            for result in made["results"]]  # fmt: skip
