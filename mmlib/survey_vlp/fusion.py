"""V1, four architectures on one data set; V8, shortlist then re-rank (sections 3.1 to 3.3, 5.1)."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmlib.metrics.retrieval import recall_at
from mmlib.survey_vlp import questions, scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, contrast, parameters, train
from mmlib.survey_vlp.questions import HELD_OUT, LENGTH
from mmlib.survey_vlp.records import as_evidence

# The same number of weights in the blocks, 147,456: 3 x 12 x 64², and 2 x 2 x 16 x 48² for two streams.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "single stream": {"joint": 3}, "dual stream": {"width": 48, "joint": 2, "scheme": "dual"},
    "dual encoder": {"text": 2, "image": 1}, "hybrid": {"text": 1, "image": 1, "joint": 1},
}  # fmt: skip
WORLDS = ("emoji", "digits")
VERSIONS, KEPT = 3, (1, 2, 3, 6, 12, 24, 60, 120)
TUNING_SEED, VALIDATION = 100, 20_000
COLOR, NOUN, HUES, NAMES = (
    scenes.ID[scenes.COLOURS[0]],
    scenes.ID[scenes.NAMES[0]],
    len(scenes.COLOURS),
    len(scenes.NAMES),
)
METRICS = {
    "color": ("question", True, 1 / HUES), "color_nats": ("question", False, None), "things": ("pair", True, 0.0),
    "r1": ("pair", True, 0.0), "log10_seconds": ("model", False, None),
}  # fmt: skip
METRICS_RERANK = {"rerank": ("pair", True, 0.0), "cap": ("pair", True, 0.0), "nats": ("pair", False, None)}


def build(arm: str, seed: int) -> Encoder:
    """An untrained model of an architecture."""
    plan = ARCHITECTURES[arm]
    heads = {"words": len(scenes.WORDS), "to_text": plan.get("width", 64), "to_image": plan.get("width", 64)}
    return Encoder(Shape(**plan, length=LENGTH, heads=heads), seed)


def color_logits(model: Encoder, ids: Tensor, image: Tensor) -> Tensor:
    """(B, 6) for questions (B, 3) about a noun's color: from `<cls>` after fusion, or the picture's vector times that
    of `red dog`, `blue dog` …, as in zero-shot classification with a dual encoder."""
    if model.shape.joint:
        return questions.answer(model, ids, image)[:, COLOR : COLOR + HUES]
    noun, hue = torch.arange(NAMES * HUES) // HUES, torch.arange(NAMES * HUES) % HUES
    phrases = torch.stack([torch.full_like(noun, scenes.CLS), COLOR + hue, NOUN + noun], 1)
    said, shown = model.vectors(model.text(phrases), model.image(image))
    candidates = said.view(NAMES, HUES, -1)[ids[:, 2] - NOUN]  # (B, 6, d)
    return model.logit_scale.exp() * (candidates @ shown[:, :, None])[..., 0]


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
            total = total + contrast(*pairs, model.logit_scale.exp())
        return total

    train(model, loss, settings[f"{world}_steps"] * times, settings["batch"], seed, rate)
    return model


def asked(model: Encoder, world: str, count: int, seed: int) -> dict[str, list[float]]:
    """Color questions about scenes that were not trained on, drawn from `seed`."""
    test = questions.pool(count, seed, world=world, test=True)
    with torch.inference_mode():
        logits = color_logits(model, test["ids"][0], questions.tiles(test))
    return questions.judged(logits, test["answers"][0] - COLOR, "color")


# ---- learning rates --------------------------------------------------------------------------------------------------


def grid(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """A shard per architecture and rate, on a seed and on scenes of validation that no result uses."""
    return [
        {"name": f"{arm}/rate{rate:g}", "arm": arm, "rate": rate, "settings": settings}
        for arm in ARCHITECTURES for rate in settings["rates"]
    ]  # fmt: skip


def tune(shard: dict[str, Any]) -> dict[str, Any]:
    """Nats of color questions after training with one rate."""
    torch.set_num_threads(1)
    model = learn(shard["arm"], "emoji", shard["rate"], shard["settings"], TUNING_SEED)
    nats = asked(model, "emoji", shard["settings"]["test_scenes"], VALIDATION)["color_nats"]
    return {"arm": shard["arm"], "rate": shard["rate"], "nats": round(sum(nats) / len(nats), 4)}


def arms(tuned: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Architectures in either world, each with its best rate."""
    best = {arm: min((t for t in tuned if t["arm"] == arm), key=lambda t: t["nats"])["rate"] for arm in ARCHITECTURES}
    plans = {f"{arm}, {world}": {"architecture": arm, "world": world, "rate": best[arm]}
             for world in WORLDS for arm in ARCHITECTURES}  # fmt: skip
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


def query_seconds(model: Encoder, data: dict[str, Tensor], image: Tensor, queries: int = 12) -> float:
    """Measured seconds for a caption among all pictures: a joint pass per thing and picture, or a text's vector times
    the pictures' stored ones."""
    _, shown = model.vectors(model.text(data["text"][:1]), model.image(image))
    started = time.process_time()
    for text, things in zip(data["text"][:queries], data["things"][:queries], strict=True):
        if model.shape.joint:
            nouns = things[things[:, 0] >= 0, 0].repeat(len(image))
            color_logits(model, question(nouns), image.repeat_interleave(3, 0))
        else:
            said = model.norm(model.text(text[None])[0][:, 0])
            functional.normalize(model.head("to_text", said), dim=-1) @ shown.T
    return (time.process_time() - started) / queries


def retrieval(model: Encoder, world: str, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores among `count` pictures, every scene in three versions; and what re-ranking the towers' best k finds."""
    data, right = questions.pool(count, HELD_OUT, world=world, test=True, versions=VERSIONS), torch.arange(count)
    image = questions.tiles(data)
    with torch.inference_mode():
        said, shown = model.vectors(model.text(data["text"]), model.image(image))
        quick = said @ shown.T if model.shape.text else None
        best = verified(model, data["things"], image) if model.shape.joint else quick
        seconds = query_seconds(model, data, image)
    size = count // VERSIONS
    alike = (right[:, None] % size == right % size).numpy()
    found = {"r1": recall_at(best.numpy(), 1).tolist(), "things": recall_at(best.numpy(), 1, alike).tolist(),
             "log10_seconds": [torch.tensor(seconds).log10().item()]}  # fmt: skip
    return found, shortlists(quick, best) if model.shape.text and model.shape.joint else {}


def shortlists(quick: Tensor, slow: Tensor) -> dict[int, dict[str, list[float]]]:
    """V8: per k whether the right picture is among the k best of `quick`, and first of those by `slow`."""
    right, found = torch.arange(len(quick)), {}
    nats = functional.cross_entropy(slow, right, reduction="none").tolist()  # tells apart two perfect runs
    for k in (k for k in KEPT if k <= len(quick)):
        best = quick.topk(k, 1).indices
        chosen = best.gather(1, slow.gather(1, best).argmax(1, keepdim=True))[:, 0]
        found[k] = {"rerank": (chosen == right).float().tolist(),
                    "cap": (best == right[:, None]).any(1).float().tolist(), "nats": nats}  # fmt: skip
    return found


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Train one architecture in one world; answer, retrieve, and re-rank where it has towers and fusion."""
    torch.set_num_threads(1)
    settings, plan, started = shard["settings"], shard["plan"], time.process_time()
    model = learn(plan["architecture"], plan["world"], plan["rate"], settings, shard["seed"], plan.get("times", 1))
    spent, count = time.process_time() - started, settings["pictures"]
    scores = asked(model, plan["world"], settings["test_scenes"], HELD_OUT)
    found, rerank = retrieval(model, plan["world"], count)
    joint, steps = bool(model.shape.joint), settings[f"{plan['world']}_steps"] * plan.get("times", 1)
    cost = {"parameters": parameters(model), "rate": plan["rate"], "steps": steps, "train_seconds": round(spent, 1),
            "joint_passes_a_query": 3 * count * joint, "text_passes_a_query": int(not joint),
            "ms_a_query": round(1000 * 10 ** found["log10_seconds"][0], 3)}  # fmt: skip
    return {"arm": shard["arm"], "world": plan["world"], "seed": shard["seed"], "scores": scores | found, "cost": cost,
            "rerank": {f"k={k}, {plan['world']}": part for k, part in rerank.items()}}  # fmt: skip


def evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """V1 in both worlds, with what a model scores that knows which colors there are, and no more."""
    blind = {"color": [1 / 3] * settings["test_scenes"]}
    mine = [*results, {"arm": "any color that is there", "seed": None, "scores": blind}]
    asked = {"question": settings["test_scenes"], "pair": settings["pictures"], "model": 1}
    return as_evidence("survey_vlp-fusion", mine, METRICS, asked)


def rerank_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """V8: the hybrid models."""
    mine = [
        {"arm": arm, "seed": r["seed"], "scores": scores} for r in results for arm, scores in r["rerank"].items()
    ]  # fmt: skip
    return as_evidence("survey_vlp-fusion", mine, METRICS_RERANK, {"pair": settings["pictures"]})
