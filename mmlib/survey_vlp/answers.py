"""V6, which modality answers; V9, generate, then compress (sections 5.2, 5.3 and 6)."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmlib import store
from mmlib.survey_vlp import scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, parameters, train
from mmlib.survey_vlp.records import as_evidence

LENGTH = 9  # tokens of the longest text, `<cls> red dog and ... <end>`
MODES, BIAS = ("both", "question only", "picture only"), {"balanced": 0.0, "biased": 0.7}
MODALITY_ARMS: dict[str, dict[str, Any]] = {
    f"{mode}, {data}": {"study": "modality", "mode": mode, "data": data} for data in BIAS for mode in MODES
}
CAPTION_ARMS: dict[str, dict[str, Any]] = {
    arm: {"study": "captions"} for arm in ("prefix", "masked", "encoder-decoder")
}
METRICS = {
    # Nats of the right answer on the balanced test: they tell apart two seeds that are both perfect.
    "modality": {name: ("question", True, 0.0) for name in BIAS} | {"nats": ("question", False, None)},
    "captions": {"precision": ("scene", True, 0.0), "recall": ("scene", True, 0.0), "bleu4": ("scene", True, None),
                 "invented": ("scene", False, 0.0)},
}  # fmt: skip
HEADS = {"words": len(scenes.WORDS)}


# ---- V6, and compression ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=6)
def colour_questions(count: int, seed: int, bias: float, test: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Colours of named things: ids, pictures, answers; a share `bias` wears the favourite colour of its name."""
    things, rng = scenes.draw(count, (2, 4), seed, distinct=True), np.random.default_rng(seed)
    drawn = np.where(rng.random((count, 4)) < bias, things[..., 0] % 6, rng.integers(6, size=(count, 4)))
    things[..., 1] = np.where(things[..., 0] >= 0, drawn, -1)
    texts, answers = scenes.questions(things, "color", seed)
    pictures = scenes.tiles(scenes.render(things, store.project_root() / "data", seed, test=test), 12)
    return torch.from_numpy(scenes.encode(texts, 3)), torch.from_numpy(pictures), torch.from_numpy(answers)


def answer(model: Encoder, mode: str, ids: Tensor, image: Tensor) -> Tensor:
    """(B, V) logits of the answer's word, read from `<cls>`; the other modality is hidden from attention."""
    seen = torch.full(image.shape[:2], mode != "question only")
    words = ids if mode != "picture only" else torch.cat([ids[:, :1], torch.full_like(ids[:, 1:], scenes.PAD)], 1)
    return model.head("words", model(words, image, seen)[0][:, 0])


def learn(model: Encoder, mode: str, data: str, settings: dict, seed: int, teacher: Encoder | None = None) -> float:
    """Train on questions; a teacher's distribution replaces the answers (Hinton et al. 2015). Processor seconds."""
    ids, image, answers = colour_questions(settings["scenes"], seed + 1, BIAS[data])

    def loss(items: Tensor) -> Tensor:
        items = items % len(ids)
        target = answers[items]
        if teacher is not None:
            with torch.no_grad():
                target = answer(teacher, mode, ids[items], image[items]).softmax(1)
        return functional.cross_entropy(answer(model, mode, ids[items], image[items]), target)

    started = time.process_time()
    train(model, loss, settings["question_steps"], settings["batch"], seed)
    return round(time.process_time() - started, 1)


def right_answers(model: Encoder, mode: str, settings: dict[str, Any], other: bool = False) -> dict[str, list[float]]:
    """Right answers on balanced and biased held-out questions, with the true or another scene's picture."""
    found = {}
    for name, share in BIAS.items():
        ids, image, right = colour_questions(settings["test_scenes"], 40_000, share, True)
        with torch.inference_mode():
            logits = answer(model, mode, ids, image.roll(1, 0) if other else image)
        found[name] = (logits.argmax(1) == right).float().tolist()
        if name == "balanced":
            found["nats"] = functional.cross_entropy(logits, right, reduction="none").tolist()
    return found


def rounded(model: Encoder, bits: int) -> Encoder:
    """A copy whose hidden matrices are rounded to a symmetric grid per row (round to nearest)."""
    model, top = copy.deepcopy(model), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "blocks" in name:
                step = weight.abs().amax(1, keepdim=True) / top
                weight.copy_((weight / step).round().clamp(-top, top) * step)
    return model


def run_modality(arm: str, mode: str, data: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train with one modality or both; the balanced model of both is also rounded, and teaches one of half depth."""
    model = Encoder(Shape(joint=2, length=LENGTH, heads=HEADS), seed)
    models = {arm: (model, learn(model, mode, data, settings, seed))}
    if arm == "both, balanced":
        models |= {f"{bits} bits": (rounded(model, bits), models[arm][1]) for bits in (8, 4, 2)}
        for name, teacher in (("half, distilled", model), ("half, labels", None)):
            half = Encoder(Shape(joint=1, length=LENGTH, heads=HEADS), seed + 100)
            models[name] = half, learn(half, mode, data, settings, seed, teacher)
    found = {name: (right_answers(made, mode, settings), made, spent) for name, (made, spent) in models.items()}
    if mode == "both":
        found[f"{arm}, other picture"] = right_answers(model, mode, settings, other=True), *models[arm]
    passes = settings["question_steps"]
    return {name: {"scores": scores, "cost": {"parameters": parameters(made), "passes": passes, "cpu_seconds": spent}}
            for name, (scores, made, spent) in found.items()}  # fmt: skip


# ---- V9, captions ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=6)
def described(count: int, seed: int, test: bool = False) -> tuple[np.ndarray, Tensor, Tensor]:
    """Scenes of two things, pictures, captions `<cls> … <end>`."""
    things = scenes.draw(count, (2, 2), seed, distinct=True)
    texts = [f"{text} <end>" for text in scenes.captions(things, seed)]
    pictures = scenes.tiles(scenes.render(things, store.project_root() / "data", seed, test=test), 12)
    return things, torch.from_numpy(pictures), torch.from_numpy(scenes.encode(texts, LENGTH))


def captioner(arm: str, seed: int) -> Encoder:
    """PrefixLM and masked model: one single stream; encoder-decoder: a picture tower and cross-attention."""
    parts = {"image": 1, "joint": 1, "scheme": "cross"} if arm == "encoder-decoder" else {"joint": 2}
    return Encoder(Shape(**parts, length=LENGTH, heads=HEADS), seed)


def caption_loss(model: Encoder, arm: str, ids: Tensor, image: Tensor, seed: int) -> Tensor:
    """Next words for causal models; for the masked one words that are masked (a share drawn per batch)."""
    if arm != "masked":
        hidden, _ = model(ids[:, :-1], image, causal=True)
        return functional.cross_entropy(
            model.head("words", hidden).transpose(1, 2), ids[:, 1:], ignore_index=scenes.PAD
        )
    draw = torch.Generator().manual_seed(seed)
    hit = (ids > scenes.MASK) & (torch.rand(ids.shape, generator=draw) < torch.rand(len(ids), 1, generator=draw))
    hit[:, 1] |= ~hit.any(1)
    hidden, _ = model(ids.masked_fill(hit, scenes.MASK), image)
    return functional.cross_entropy(model.head("words", hidden[hit]), ids[hit])


def write(model: Encoder, arm: str, image: Tensor) -> list[str]:
    """Greedy captions, left to right; the masked model fills a row of `<mask>` from the left, as long as in training
    (behind a single `<mask>` it would see texts that end, which it never did while it was trained)."""
    ids = torch.full((len(image), LENGTH), scenes.MASK if arm == "masked" else scenes.PAD)
    ids[:, 0] = scenes.CLS
    with torch.inference_mode():
        for place in range(1, LENGTH):
            if arm == "masked":
                hidden = model(ids, image)[0][:, place]
            else:
                hidden = model(ids[:, :place], image, causal=True)[0][:, -1]
            ids[:, place] = model.head("words", hidden).argmax(1)
    words = [[scenes.WORDS[i] for i in row] for row in ids[:, 1:].tolist()]
    return [" ".join(row[: row.index("<end>")] if "<end>" in row else row) for row in words]


def facts(text: str) -> set[tuple[str, str]]:
    """(colour, noun) pairs that a caption states, by the grammar `red dog` or `dog on red`."""
    found = set()
    for phrase in text.split(" and "):
        words = phrase.split()
        pair = (words[0], words[1]) if len(words) == 2 else (words[2], words[0]) if len(words) == 3 else ("", "")
        found |= {pair} if pair[0] in scenes.COLOURS and pair[1] in scenes.NAMES else {("", phrase)}
    return found


def judge(texts: list[str], things: np.ndarray) -> dict[str, list[float]]:
    """Against the scene itself: precision and recall of stated facts, nouns that are not there; and BLEU-4."""
    from mmlib.metrics.captions import score

    references = list(zip(*(scenes.captions(things, seed) for seed in range(16)), strict=True))
    found: dict[str, list[float]] = {"precision": [], "recall": [], "invented": []}
    for text, row in zip(texts, things, strict=True):
        true = {(scenes.COLOURS[c], scenes.NAMES[n]) for n, c in row if n >= 0}
        said, names = facts(text), {noun for _, noun in true}
        found["precision"].append(len(said & true) / len(said))
        found["recall"].append(len(said & true) / len(true))
        found["invented"].append(float(any(word in scenes.NAMES and word not in names for word in text.split())))
    return found | {"bleu4": score(texts, [sorted(set(r)) for r in references])["bleu4"]}


def run_captions(arm: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """A captioner, judged by scene and by BLEU."""
    (_, image, ids), model = described(settings["scenes"], seed + 1), captioner(arm, seed)

    def loss(items: Tensor) -> Tensor:
        return caption_loss(model, arm, ids[items % len(ids)], image[items % len(ids)], int(items[0]))

    started = time.process_time()
    train(model, loss, settings["caption_steps"], settings["batch"], seed)
    spent = round(time.process_time() - started, 1)
    things, image, _ = described(settings["test_scenes"], 50_000, True)
    cost = {"parameters": parameters(model), "passes": settings["caption_steps"], "cpu_seconds": spent}
    return {arm: {"scores": judge(write(model, arm, image), things), "cost": cost}}


def run(shard: dict[str, Any]) -> list[dict[str, Any]]:
    """One training run of V6 or V9; a result for every arm that it gives."""
    torch.set_num_threads(1)
    plan = dict(shard["plan"])
    study = plan.pop("study")
    work: Callable[..., dict[str, Any]] = run_modality if study == "modality" else run_captions
    found = work(shard["arm"], **plan, settings=shard["settings"], seed=shard["seed"])
    return [{"study": study, "arm": arm, "seed": shard["seed"], **result} for arm, result in found.items()]


def evidence(results: list[dict[str, Any]], study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Per question (V6 and compression, with chance as a constant arm) or scene (captions)."""
    mine, count = [r for r in results if r["study"] == study], settings["test_scenes"]
    if study == "modality":
        chance = [1 / len(scenes.COLOURS)] * count
        mine.append({"arm": "chance", "seed": None, "scores": dict.fromkeys(BIAS, chance)})
    stage = {"modality": "survey_vlp-answers", "captions": "survey_vlp-captions"}[study]
    return as_evidence(stage, mine, METRICS[study], {next(iter(METRICS[study].values()))[0]: count})
