"""V4, what to tokenise; V6, which modality answers; V9, generate, then compress (sections 2, 5.2, 5.3 and 6)."""

from __future__ import annotations

import copy
import functools
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib import store
from mmlib.survey_vlp import scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, parameters, train
from mmlib.survey_vlp.records import as_evidence

LENGTH = 8  # tokens of the longest text, which is a caption
HEADS = {"words": len(scenes.WORDS)}
REGIONS = {"region": 0.0, "region, 20% missed": 0.2, "region, 50% missed": 0.5}
ARMS: dict[str, dict[str, Any]] = {
    **{arm: {"study": "tokens"} for arm in (*REGIONS, "grid", "patch")},
    **{f"{mode}, {data}": {"study": "modality", "mode": mode, "data": data}
       for data in ("balanced", "biased") for mode in ("both", "question only", "picture only")},
    **{arm: {"study": "captions"} for arm in ("prefix", "masked", "encoder-decoder")}, "teacher": {"study": "compress"},
}  # fmt: skip
METRICS = {
    "tokens": {kind: ("question", True, 0.0) for kind in scenes.KINDS},
    "modality": {name: ("question", True, 0.0) for name in ("balanced", "biased")},
    "captions": {"precision": ("scene", True, 0.0), "recall": ("scene", True, 0.0), "bleu4": ("scene", True, None),
                 "invented": ("scene", False, 0.0)},
    "compress": {kind: ("question", True, 0.0) for kind in scenes.KINDS},
}  # fmt: skip


class Grid(nn.Module):
    """Two convolutions: a picture (B, 24, 24, 3) becomes sixteen cells of a feature map (B, 16, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 4, 2, 1), nn.Conv2d(32, d, 3, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 24, 24, 3) -> (B, 16, d)."""
        return self.second(functional.gelu(self.first(pictures.permute(0, 3, 1, 2)))).flatten(2).transpose(1, 2)


@functools.lru_cache(maxsize=6)
def questions(count: int, seed: int, test: bool = False) -> dict[str, Any]:
    """Scenes of one to four things: pixels, which cells are full, and a question of every kind about each scene."""
    things = scenes.draw(count, (1, 4), seed)
    pixels = torch.from_numpy(scenes.render(things, store.project_root() / "data", seed, test=test))
    asked = [scenes.questions(things, kind, seed + k) for k, kind in enumerate(scenes.KINDS)]
    return {"pixels": pixels, "full": torch.from_numpy(things[..., 0] >= 0),
            "ids": torch.stack([torch.from_numpy(scenes.encode(texts, LENGTH)[:, :4]) for texts, _ in asked]),
            "answers": torch.stack([torch.from_numpy(answers) for _, answers in asked])}  # fmt: skip


def tokens(arm: str, data: dict[str, Any], seed: int) -> tuple[Tensor, Tensor | None]:
    """Visual tokens of every scene, and which are seen: true boxes less those that a detector misses, or all."""
    if arm == "grid":
        return data["pixels"], None
    if arm not in REGIONS:
        return torch.from_numpy(scenes.tiles(data["pixels"].numpy(), 6 if arm == "patch" else 12)), None
    kept = torch.rand(data["full"].shape, generator=torch.Generator().manual_seed(seed)) >= REGIONS[arm]
    return torch.from_numpy(scenes.tiles(data["pixels"].numpy(), 12)), data["full"] & kept


def build(arm: str, seed: int, joint: int = 2) -> Encoder:
    """A single stream for the arm's tokens."""
    size = {"patch": (16, 108), "grid": (16, 1)}.get(arm, (4, 432))
    shape = Shape(joint=joint, tokens=size[0], values=size[1], length=LENGTH, heads=HEADS)
    return Encoder(shape, seed, Grid(shape.width) if arm == "grid" else None)


def answer(model: Encoder, ids: Tensor, image: Tensor, seen: Tensor | None) -> Tensor:
    """(B, V) logits of the answer's word, read from `<cls>`."""
    return model.head("words", model(ids, image, seen)[0][:, 0])


def fit_questions(
    model: Encoder, arm: str, settings: dict[str, Any], seed: int, teacher: Encoder | None = None
) -> None:
    """Train on questions of all kinds in turn; a teacher's distribution replaces the answers (Hinton et al. 2015)."""
    data = questions(settings["scenes"], seed + 1)
    image, seen = tokens(arm, data, seed)

    def loss(items: Tensor) -> Tensor:
        kind, scene = items % len(scenes.KINDS), items // len(scenes.KINDS) % len(image)
        ids, picture, mask = data["ids"][kind, scene], image[scene], None if seen is None else seen[scene]
        logits = answer(model, ids, picture, mask)
        if teacher is None:
            return functional.cross_entropy(logits, data["answers"][kind, scene])
        with torch.no_grad():
            target = answer(teacher, ids, picture, mask).softmax(1)
        return functional.cross_entropy(logits, target)

    train(model, loss, settings["question_steps"], settings["batch"], seed)


def right_answers(model: Encoder, arm: str, settings: dict[str, Any]) -> dict[str, list[float]]:
    """Per kind of question, right answers about held-out scenes; detectors miss there, too."""
    data = questions(settings["test_scenes"], 30_000, True)
    image, seen = tokens(arm, data, 1)
    with torch.inference_mode():
        said = [answer(model, data["ids"][k], image, seen).argmax(1) for k in range(len(scenes.KINDS))]
    return {kind: (said[k] == data["answers"][k]).float().tolist() for k, kind in enumerate(scenes.KINDS)}


def run_tokens(shard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """V4: one kind of visual token; milliseconds for 1,000 pictures by part of the model."""
    arm, settings = shard["arm"], shard["settings"]
    model = build(arm, shard["seed"])
    fit_questions(model, arm, settings, shard["seed"])
    data = questions(settings["test_scenes"], 30_000, True)
    (image, seen), spent = tokens(arm, data, 1), []
    with torch.inference_mode():
        for call in (lambda: model.embed_pixels(image), lambda: answer(model, data["ids"][0], image, seen)):
            started = time.process_time()
            call()
            spent.append(1e6 * (time.process_time() - started) / len(image))
    cost = {"parameters": parameters(model), "tokens": model.shape.tokens, "embed_ms": spent[0], "all_ms": spent[1]}
    return {arm: {"scores": right_answers(model, arm, settings), "cost": cost}}


# ---- V6 --------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=6)
def colour_questions(count: int, seed: int, bias: float, test: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Colours of named things: ids, pictures, answers; a share `bias` wears the favourite colour of its name."""
    things, rng = scenes.draw(count, (2, 4), seed, distinct=True), np.random.default_rng(seed)
    drawn = np.where(rng.random((count, 4)) < bias, things[..., 0] % 6, rng.integers(6, size=(count, 4)))
    things[..., 1] = np.where(things[..., 0] >= 0, drawn, -1)
    texts, answers = scenes.questions(things, "color", seed)
    pictures = scenes.tiles(scenes.render(things, store.project_root() / "data", seed, test=test), 12)
    return torch.from_numpy(scenes.encode(texts, 3)), torch.from_numpy(pictures), torch.from_numpy(answers)


def run_modality(shard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """V6: train with one or both modalities on balanced or biased questions; answers on both test sets."""
    settings, seed, mode, data = (
        *(shard[k] for k in ("settings", "seed")),
        *(shard["plan"][k] for k in ("mode", "data")),
    )
    model, bias = build("cells", seed), {"balanced": 0.0, "biased": 0.7}
    ids, image, answers = colour_questions(settings["scenes"], seed + 1, bias[data])

    def logits(ids: Tensor, image: Tensor) -> Tensor:
        seen = torch.full(image.shape[:2], mode != "question only")
        words = ids if mode != "picture only" else torch.cat([ids[:, :1], torch.zeros_like(ids[:, 1:])], 1)
        return answer(model, words, image, seen)

    def loss(items: Tensor) -> Tensor:
        items = items % len(ids)
        return functional.cross_entropy(logits(ids[items], image[items]), answers[items])

    train(model, loss, settings["question_steps"], settings["batch"], seed)
    found: dict[str, dict[str, Any]] = {shard["arm"]: {"scores": {}, "cost": {"parameters": parameters(model)}}}
    if mode == "both":
        found[f"{shard['arm']}, other picture"] = {"scores": {}, "cost": {}}
    with torch.inference_mode():
        for name, share in bias.items():
            words, pictures, right = colour_questions(settings["test_scenes"], 40_000, share, True)
            for (arm, result), shown in zip(found.items(), (pictures, pictures.roll(1, 0)), strict=False):
                assert arm in found
                result["scores"][name] = (logits(words, shown).argmax(1) == right).float().tolist()
    return found


# ---- V9 --------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=6)
def described(count: int, seed: int, test: bool = False) -> tuple[np.ndarray, Tensor, Tensor]:
    """Scenes of two things, pictures, captions `<cls> … <end>`."""
    things = scenes.draw(count, (2, 2), seed, distinct=True)
    texts = [f"{text} <end>" for text in scenes.captions(things, seed)]
    pictures = scenes.tiles(scenes.render(things, store.project_root() / "data", seed, test=test), 12)
    return things, torch.from_numpy(pictures), torch.from_numpy(scenes.encode(texts, LENGTH + 1))


def captioner(arm: str, seed: int) -> Encoder:
    """PrefixLM and masked model: one single stream; encoder-decoder: a picture tower and cross-attention."""
    parts = {"image": 1, "joint": 1, "scheme": "cross"} if arm == "encoder-decoder" else {"joint": 2}
    return Encoder(Shape(**parts, length=LENGTH + 1, heads=HEADS), seed)


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
    """Greedy captions, left to right; the masked model fills one `<mask>` after the other."""
    ids = torch.full((len(image), 1), scenes.CLS)
    with torch.inference_mode():
        for _ in range(LENGTH):
            masked = torch.cat([ids, torch.full_like(ids[:, :1], scenes.MASK)], 1)
            hidden, _ = model(masked, image) if arm == "masked" else model(ids, image, causal=True)
            ids = torch.cat([ids, model.head("words", hidden[:, -1]).argmax(1, keepdim=True)], 1)
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


def run_captions(shard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """V9, first half: a captioner, judged by scene and by BLEU."""
    arm, settings, seed = (shard[k] for k in ("arm", "settings", "seed"))
    (_, image, ids), model = described(settings["scenes"], seed + 1), captioner(arm, seed)

    def loss(items: Tensor) -> Tensor:
        return caption_loss(model, arm, ids[items % len(ids)], image[items % len(ids)], int(items[0]))

    train(model, loss, settings["caption_steps"], settings["batch"], seed)
    things, image, _ = described(settings["test_scenes"], 50_000, True)
    return {arm: {"scores": judge(write(model, arm, image), things), "cost": {"parameters": parameters(model)}}}


def rounded(model: Encoder, bits: int) -> Encoder:
    """A copy whose hidden matrices are rounded to a symmetric grid per row (round to nearest)."""
    model, top = copy.deepcopy(model), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "blocks" in name:
                step = weight.abs().amax(1, keepdim=True) / top
                weight.copy_((weight / step).round().clamp(-top, top) * step)
    return model


def run_compress(shard: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """V9, second half: two layers, rounded to 8, 4 and 2 bits, and one layer taught by them or by the labels alone."""
    settings, seed, teacher = shard["settings"], shard["seed"], build("cells", shard["seed"])
    fit_questions(teacher, "cells", settings, seed)
    models = {"teacher": teacher} | {f"{bits} bits": rounded(teacher, bits) for bits in (8, 4, 2)}
    for name, guide in (("half, distilled", teacher), ("half, labels", None)):
        models[name] = build("cells", seed + 100, joint=1)
        fit_questions(models[name], "cells", settings, seed, guide)
    return {arm: {"scores": right_answers(model, "cells", settings), "cost": {"parameters": parameters(model)}}
            for arm, model in models.items()}  # fmt: skip


RUNS = {"tokens": run_tokens, "modality": run_modality, "captions": run_captions, "compress": run_compress}


def run(shard: dict[str, Any]) -> list[dict[str, Any]]:
    """One model of V4, V6 or V9; a result for every arm that it gives."""
    torch.set_num_threads(1)
    study = shard["plan"]["study"]
    found = RUNS[study](shard)
    return [{"study": study, "arm": arm, "seed": shard["seed"], **result} for arm, result in found.items()]


def evidence(results: list[dict[str, Any]], study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Per question or scene; V6 has chance as a constant arm."""
    mine, count = [r for r in results if r["study"] == study], settings["test_scenes"]
    if study == "modality":
        chance = [1 / len(scenes.COLOURS)] * count
        mine.append({"arm": "chance", "seed": None, "scores": {"balanced": chance, "biased": chance}})
    return as_evidence("survey_vlp-inputs", mine, METRICS[study], {next(iter(METRICS[study].values()))[0]: count})
