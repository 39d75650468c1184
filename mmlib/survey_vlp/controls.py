"""Controls of V3 (as many passes of the questions themselves; captions that do not tell what binds) and V4 once more,
asking what cannot be told without the question (sections 2 and 4)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.survey_vlp import questions, scenes, tasks
from mmlib.survey_vlp.encoder import Encoder, Shape, parameters, train
from mmlib.survey_vlp.questions import HELD_OUT, LENGTH
from mmlib.survey_vlp.records import as_evidence

# Of V4, for all kinds of token alike: the spread of initial position embeddings, and the rate. In pilots on another
# seed patches reached 87 % of colors in 600 steps with these.
PLACES, RATE = 0.5, 2.0
LONGER = "scratch, equal passes"  # what pre-training has to beat
PERMUTED = ("MLM", "PrefixLM")
ARMS: dict[str, dict[str, Any]] = {
    LONGER: {"study": "passes", "pretrain": ""},
    **{f"{arm}, permuted captions": {"study": "passes", "pretrain": tasks.TASKS[arm][0]} for arm in PERMUTED},
    **{arm: {"study": "reading"} for arm in (*tasks.MISSED, "grid", "patch")},
}
METRICS = {
    "passes": tasks.METRICS["tasks"],
    "reading": {
        **tasks.METRICS["tokens"],
        # Asked the next scene's question; and how often that is right less than the scene's own question is.
        **{f"{kind}_{name}": ("question", True, None) for kind in scenes.KINDS for name in ("other", "read")},
    },
}


# ---- V3 --------------------------------------------------------------------------------------------------------------


def permuted(things: np.ndarray, seed: int) -> np.ndarray:
    """Scenes whose colors were moved on by 0, 1 or 2 things, each a third of them: no caption tells what binds."""
    by = np.random.default_rng(seed).integers(3, size=len(things))
    return np.concatenate([questions.moved(row[None], k) for row, k in zip(things, by, strict=True)])


def run_passes(arm: str, pretrain: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """As `tasks.run_tasks` with the same weights, scenes and test: pre-training on permuted captions, or, where
    `pretrain` names no task, color questions in all passes."""
    data = questions.pool(settings["scenes"], seed + 1)
    image, count = questions.tiles(data), len(data["text"])
    said = scenes.captions(permuted(data["things"].numpy(), seed), seed + 1)
    text = torch.from_numpy(scenes.encode(said, LENGTH))
    heads = {"words": len(scenes.WORDS), "match": 2, "nouns": len(scenes.NAMES) + 1, "pixels": 432}
    model = Encoder(Shape(joint=2, length=LENGTH, heads=heads | {"to_text": 64, "to_image": 64}), seed)
    draw = torch.Generator().manual_seed(seed)

    def prepare(items: Tensor) -> Tensor:
        return tasks.task_loss(model, pretrain, text[items % count], image[items % count], None, draw)

    def tune(items: Tensor) -> Tensor:
        logits = questions.answer(model, data["ids"][0, items % count], image[items % count])
        return functional.cross_entropy(logits, data["answers"][0, items % count])

    before, after = settings["task_steps"], settings["tune_steps"]
    if pretrain:
        train(model, prepare, before, settings["batch"], seed)
    train(model, tune, after if pretrain else before + after, settings["batch"], seed)
    test = questions.pool(settings["test_scenes"], HELD_OUT, test=True)
    with torch.inference_mode():
        logits = questions.answer(model, test["ids"][0], questions.tiles(test))
    return {"scores": questions.judged(logits, test["answers"][0], "color"),
            "cost": {"parameters": parameters(model), "passes": before + after}}  # fmt: skip


# ---- V4 --------------------------------------------------------------------------------------------------------------


def asked(arm: str, count: int, seed: int, draw: int, test: bool = False) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Questions of all kinds: ids (K, N, 3), answers (K, N), visual tokens (K, N, ...), which are seen (K, N, 4).

    Colors are asked of three things that all differ, so that the picture alone does not say which of them is meant;
    counts of one to four things, of which several may be alike.
    """
    pools = [questions.pool(count, seed, repeat=kind == "count", test=test) for kind in scenes.KINDS]
    image, seen = zip(*(tasks.tokens(arm, data, draw) for data in pools), strict=True)
    ids, answers = (torch.stack([data[name][k] for k, data in enumerate(pools)]) for name in ("ids", "answers"))
    return ids, answers, torch.stack(image), None if seen[0] is None else torch.stack(seen)


def token_model(arm: str, seed: int) -> Encoder:
    """A single stream for one kind of visual token."""
    size = {"patch": (16, 108), "grid": (16, 1)}.get(arm, (4, 432))
    shape = Shape(joint=2, tokens=size[0], values=size[1], length=LENGTH, heads={"words": len(scenes.WORDS)})
    model = Encoder(shape, seed, tasks.Grid(shape.width) if arm == "grid" else None)
    nn.init.normal_(model.embed_image_places.weight, std=PLACES)
    return model


def run_reading(arm: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """A single stream over one kind of visual token, questions of all kinds; and, as control, the next scene's
    questions: who answers those as well as its own does not read them."""
    model, (ids, answers, image, seen) = token_model(arm, seed), asked(arm, settings["scenes"], seed + 1, seed)

    def loss(items: Tensor) -> Tensor:
        kind, scene = items % len(scenes.KINDS), items // len(scenes.KINDS) % ids.shape[1]
        part = None if seen is None else seen[kind, scene]
        logits = questions.answer(model, ids[kind, scene], image[kind, scene], part)
        return functional.cross_entropy(logits, answers[kind, scene])

    train(model, loss, settings["reading_steps"], settings["batch"], seed, RATE)
    test, scores, started = asked(arm, settings["test_scenes"], HELD_OUT, 1, True), {}, time.process_time()
    for k, kind in enumerate(scenes.KINDS):
        scores |= judge(model, kind, *(None if part is None else part[k] for part in test))
    asked_twice = 2 * len(scenes.KINDS) * settings["test_scenes"]
    answer_ms = 1e6 * (time.process_time() - started) / asked_twice
    embed = embed_seconds(model, test[2][0])
    scores["log10_embed_seconds"] = [float(np.log10(embed))]
    cost = {"parameters": parameters(model), "passes": settings["reading_steps"], "tokens": model.shape.tokens,
            "embed_ms": 1000 * embed, "answer_ms": answer_ms}  # fmt: skip
    return {"scores": scores, "cost": cost}


def judge(model: Encoder, kind: str, ids: Tensor, answers: Tensor, image: Tensor, seen: Tensor | None) -> dict:
    """Scores of a kind of question; how often another scene's question gets the right answer, and the difference."""
    with torch.inference_mode():
        scores = questions.judged(questions.answer(model, ids, image, seen), answers, kind)
        other = questions.judged(questions.answer(model, ids.roll(1, 0), image, seen), answers, kind)[kind]
    read = [own - without for own, without in zip(scores[kind], other, strict=True)]
    return scores | {f"{kind}_other": other, f"{kind}_read": read}


def embed_seconds(model: Encoder, image: Tensor) -> float:
    """Processor seconds for the embedding of 1,000 pictures."""
    with torch.inference_mode():
        model.embed_pixels(image)
        started = time.process_time()
        for _ in range(tasks.REPEATS):
            model.embed_pixels(image)
    return 1000 * (time.process_time() - started) / tasks.REPEATS / len(image)


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One model."""
    torch.set_num_threads(1)
    plan, started = shard["plan"], time.process_time()
    if plan["study"] == "passes":
        found = run_passes(shard["arm"], plan["pretrain"], shard["settings"], shard["seed"])
    else:
        found = run_reading(shard["arm"], shard["settings"], shard["seed"])
    found["cost"]["cpu_seconds"] = round(time.process_time() - started, 1)
    return {"study": plan["study"], "arm": shard["arm"], "seed": shard["seed"], **found}


def evidence(results: list[dict[str, Any]], study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Per question."""
    mine = [r for r in results if r["study"] == study]
    return as_evidence("survey_vlp-controls", mine, METRICS[study], {"question": settings["test_scenes"], "model": 1})


def beside(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs of `survey_vlp-tasks` from its evidence, to be compared with the controls: the same seeds and questions."""
    found = []
    for arm in ("scratch", *PERMUTED):
        values = {name: stored["metrics"][name]["values"][arm] for name in METRICS["passes"]}
        found += [
            {"study": "passes", "arm": arm, "seed": int(seed), "scores": {name: values[name][seed] for name in values}}
            for seed in values["color"]
        ]
    return found
