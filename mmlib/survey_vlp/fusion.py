"""V1, four architectures on one data set; V8, shortlist then re-rank (sections 3.1 to 3.3, 5.1)."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmlib.metrics.retrieval import recall_at
from mmlib.models.fusion_encoder import Encoder, Shape, contrast, parameters, train
from mmlib.survey_vlp import questions, scenes
from mmlib.survey_vlp.questions import COLOR, HELD_OUT, HUES, LENGTH, NAMES, NOUN, VALIDATION
from mmlib.survey_vlp.records import as_evidence

# The same number of weights in the blocks, 147,456: 3 x 12 x 64², and 2 x 2 x 16 x 48² for two streams.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "single stream": {"joint": 3}, "dual stream": {"width": 48, "joint": 2, "scheme": "dual"},
    "dual encoder": {"text": 2, "image": 1}, "hybrid": {"text": 1, "image": 1, "joint": 1},
}  # fmt: skip
WORLDS = ("emoji", "digits")
VERSIONS, KEPT = 3, (1, 2, 3, 6, 12, 25, 50, 100, 250)  # and the whole pool
TUNING_SEED, QUERIES = 100, 4  # captions whose search is timed
METRICS = {
    "color": ("question", True, 1 / HUES), "color_nats": ("question", False, None), "things": ("pair", True, 0.0),
    "r1": ("pair", True, 0.0), "statement": ("statement", True, 0.5), "statement_nats": ("statement", False, None),
    "log10_seconds": ("model", False, None),
}  # fmt: skip
METRICS_RERANK = {
    "rerank": ("pair", True, 0.0),
    "cap": ("pair", True, 0.0),
    "seconds": ("model", False, None),
    "nats": ("pair", False, None),
}


def build(arm: str, seed: int) -> Encoder:
    """An untrained model of an architecture."""
    plan = ARCHITECTURES[arm]
    heads = {"words": scenes.SIZE, "to_text": plan.get("width", 64), "to_image": plan.get("width", 64)}
    return Encoder(Shape(scenes.SIZE, **plan, length=LENGTH, heads=heads), seed)


def color_logits(model: Encoder, ids: Tensor, image: Tensor) -> Tensor:
    """(B, 6) for questions (B, 3) about a noun's color: from `<cls>` after fusion, or the picture's vector times that
    of `red dog`, `blue dog` …, as in zero-shot classification with a dual encoder."""
    if model.shape.joint:
        return questions.color_logits(model, ids, image)
    noun, hue = torch.arange(NAMES * HUES) // HUES, torch.arange(NAMES * HUES) % HUES
    phrases = torch.stack([torch.full_like(noun, scenes.CLS), COLOR + hue, NOUN + noun], 1)
    said, shown = model.vectors(model.text(phrases), model.image(image))
    candidates = said.view(NAMES, HUES, -1)[ids[:, 2] - NOUN]  # (B, 6, d)
    return model.scale() * (candidates @ shown[:, :, None])[..., 0]


def learn(arm: str, world: str, rate: float, settings: dict[str, Any], seed: int, times: int = 1) -> Encoder:
    """Train on color questions; towers on InfoNCE of captions as well, in the same steps on the same scenes."""
    model, data = build(arm, seed), questions.pool(settings["scenes"], seed + 1, world=world)
    image = questions.tiles(data)

    def loss(items: Tensor) -> Tensor:
        items = items % len(image)
        asked = color_logits(model, data["ids"][0, items], image[items])
        total = functional.cross_entropy(asked, data["answers"][0, items] - COLOR)
        if model.shape.text:
            pairs = model.vectors(model.text(data["text"][items]), model.image(image[items]))
            total = total + contrast(*pairs, model.scale())
        return total

    train(model, loss, settings[f"{world}_steps"] * times, settings["batch"], seed, rate)
    return model


def asked(model: Encoder, world: str, count: int, seed: int, part: str = "test") -> dict[str, list[float]]:
    """Color questions about scenes that were not trained on, drawn from `seed`, in handwriting of `part`."""
    test = questions.pool(count, seed, world=world, part=part)
    with torch.inference_mode():
        logits = color_logits(model, test["ids"][0], questions.tiles(test))
    return questions.judged(logits, test["answers"][0] - COLOR, "color")


# ---- learning rates --------------------------------------------------------------------------------------------------


def grid(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """A shard per world, architecture and rate, on a seed, scenes and handwriting of validation that no result uses."""
    return [
        {"name": f"{arm}/{world}/rate{rate:g}", "arm": arm, "world": world, "rate": rate, "settings": settings}
        for world in WORLDS for arm in ARCHITECTURES for rate in settings["rates"]
    ]  # fmt: skip


def tune(shard: dict[str, Any]) -> dict[str, Any]:
    """Nats of color questions after training with one rate."""
    torch.set_num_threads(1)
    key = {name: shard[name] for name in ("arm", "world", "rate")}
    model = learn(**key, settings=shard["settings"], seed=TUNING_SEED)
    nats = asked(model, shard["world"], shard["settings"]["test_scenes"], VALIDATION, "validation")["color_nats"]
    return {**key, "nats": round(sum(nats) / len(nats), 4)}


def arms(tuned: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Architectures in either world, each with the rate that was best there."""
    plans = {}
    for world in WORLDS:
        for arm in ARCHITECTURES:
            mine = [each for each in tuned if (each["arm"], each["world"]) == (arm, world)]
            rate = min(mine, key=lambda each: each["nats"])["rate"]
            plans[f"{arm}, {world}"] = {"architecture": arm, "world": world, "rate": rate}
    return plans | {"dual encoder, emoji, 3 x steps": {**plans["dual encoder, emoji"], "times": 3}}


# ---- retrieval -------------------------------------------------------------------------------------------------------


def question(nouns: Tensor) -> Tensor:
    """(N, 3) ids of `what_color noun`."""
    first = torch.tensor([scenes.CLS, scenes.ID["what_color"]]).expand(len(nouns), 2)
    return torch.cat([first, NOUN + nouns[:, None]], 1)


def verified(model: Encoder, things: Tensor, image: Tensor) -> Tensor:
    """(captions, pictures) log-probability of what a caption says: a fused model is asked for every thing's color.

    Captions share nouns here, so that every question is asked once a picture; `query_seconds` counts all of them.
    """
    count = len(image)
    ids, pictures = question(torch.arange(NAMES)).repeat(count, 1), image.repeat_interleave(NAMES, 0)
    table = color_logits(model, ids, pictures).log_softmax(1).view(count, NAMES, HUES)
    said = [row[row[:, 0] >= 0] for row in things]
    return torch.stack([table[:, row[:, 0], row[:, 1]].sum(1) for row in said])


def query_seconds(model: Encoder, data: dict[str, Tensor], image: Tensor, k: int, queries: int) -> float:
    """Measured processor seconds for a caption among all pictures, whose vectors are there already.

    Models with towers read the text, multiply and sort; where `k` is more than one, fusion then takes a joint pass per
    thing and picture of the `k` best, without towers of all of them.
    """
    towers, joint = bool(model.shape.text), bool(model.shape.joint) and k > 1
    shown = model.vectors(model.text(data["text"][:1]), model.image(image))[1] if towers else None
    started = time.process_time()
    for text, things in zip(data["text"][:queries], data["things"][:queries], strict=True):
        best = torch.arange(k)
        if towers:
            said = model.norm(model.text(text[None])[0][:, 0])
            best = (functional.normalize(model.head("to_text", said), dim=-1) @ shown.T)[0].topk(k).indices
        if joint:
            nouns = things[things[:, 0] >= 0, 0]
            color_logits(model, question(nouns.repeat(k)), image[best].repeat_interleave(len(nouns), 0))
    return (time.process_time() - started) / queries


def retrieval(model: Encoder, world: str, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores among `count` pictures, every scene in three versions; and what re-ranking the towers' best k finds."""
    data, right = questions.pool(count, HELD_OUT, world=world, part="test", versions=VERSIONS), torch.arange(count)
    image = questions.tiles(data)
    with torch.inference_mode():
        said, shown = model.vectors(model.text(data["text"]), model.image(image))
        quick = said @ shown.T if model.shape.text else None
        best = verified(model, data["things"], image) if model.shape.joint else quick
        seconds = query_seconds(model, data, image, count, QUERIES)
    size = count // VERSIONS
    alike = (right[:, None] % size == right % size).numpy()
    found = {"r1": recall_at(best.numpy(), 1).tolist(), "things": recall_at(best.numpy(), 1, alike).tolist(),
             "log10_seconds": [torch.tensor(seconds).log10().item()]}  # fmt: skip
    if not (model.shape.text and model.shape.joint):
        return found, {}
    rerank = shortlists(quick, best)
    for k, part in rerank.items():
        with torch.inference_mode():
            part["seconds"] = [query_seconds(model, data, image, k, QUERIES)]
    return found, rerank


def shortlists(quick: Tensor, slow: Tensor) -> dict[int, dict[str, list[float]]]:
    """V8: per k whether the right picture is among the k best of `quick`, first of those by `slow`, and its nats among
    them, which tell two perfect runs apart; a picture that is not on the list counts as a guess among all."""
    right, found = torch.arange(len(quick)), {}
    for k in (*(k for k in KEPT if k < len(quick)), len(quick)):
        best = quick.topk(k, 1).indices
        hit, scores = best == right[:, None], slow.gather(1, best)
        chosen, there = best.gather(1, scores.argmax(1, keepdim=True))[:, 0], hit.any(1)
        nats = -(scores.log_softmax(1).masked_fill(~hit, 0).sum(1))
        nats = torch.where(there, nats, torch.tensor(float(len(quick))).log())
        found[k] = {"rerank": (chosen == right).float().tolist(), "cap": there.float().tolist(), "nats": nats.tolist()}
    return found


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Train one architecture in one world; answer, retrieve, and re-rank where it has towers and fusion."""
    torch.set_num_threads(1)
    settings, plan, started = shard["settings"], shard["plan"], time.process_time()
    model = learn(plan["architecture"], plan["world"], plan["rate"], settings, shard["seed"], plan.get("times", 1))
    spent, count = time.process_time() - started, settings["pictures"]
    scores = asked(model, plan["world"], settings["test_scenes"], HELD_OUT)
    scores |= questions.compare(functools.partial(color_logits, model), settings, plan["world"])
    found, rerank = retrieval(model, plan["world"], count)
    joint, steps = bool(model.shape.joint), settings[f"{plan['world']}_steps"] * plan.get("times", 1)
    cost = {"parameters": parameters(model), "rate": plan["rate"], "steps": steps, "train_seconds": round(spent, 1),
            "joint_passes_a_query": 3 * count * joint, "text_passes_a_query": int(not joint),
            "seconds_per_1000_queries": round(1000 * 10 ** found["log10_seconds"][0], 3)}  # fmt: skip
    return {"arm": shard["arm"], "world": plan["world"], "seed": shard["seed"], "scores": scores | found, "cost": cost,
            "rerank": {f"k={k}, {plan['world']}": part for k, part in rerank.items()}}  # fmt: skip


def evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """V1 in both worlds, with what a model scores that knows which colors there are, and no more."""
    blind = {"color": [1 / 3] * settings["test_scenes"]}
    coin = {"statement": [0.5] * settings["test_scenes"]}
    fixed = {"any color that is there": blind, "a coin": coin}
    mine = [*results, *({"arm": arm, "seed": None, "scores": scores} for arm, scores in fixed.items())]
    asked = {"question": settings["test_scenes"], "statement": settings["test_scenes"], "pair": settings["pictures"],
             "model": 1}  # fmt: skip
    return as_evidence("survey_vlp-fusion", mine, METRICS, asked)


def rerank_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """V8: the hybrid models."""
    mine = [
        {"arm": arm, "seed": r["seed"], "scores": scores} for r in results for arm, scores in r["rerank"].items()
    ]  # fmt: skip
    return as_evidence("survey_vlp-fusion", mine, METRICS_RERANK, {"pair": settings["pictures"], "model": 1})
