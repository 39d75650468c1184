"""V1, four architectures on one data set; V8, shortlist then re-rank (sections 3.1 to 3.3, 5.1)."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib import store
from mmlib.survey_vlp import scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, contrast, parameters, train
from mmlib.survey_vlp.records import as_evidence
from mmlib.survey_vlp.towers import recall

LENGTH, TEST, KEPT = 9, 128, (1, 2, 4, 8, 16, 32, 64, 128)
# The same number of weights in the blocks, 147,456: 3 x 12 x 64², and 2 x 2 x 16 x 48² for two streams.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "single stream": {"joint": 3}, "dual stream": {"width": 48, "joint": 2, "scheme": "dual"},
    "dual encoder": {"text": 2, "image": 1}, "hybrid": {"text": 1, "image": 1, "joint": 1},
}  # fmt: skip
WORLDS = ("emoji", "digits")
METRICS = {
    "r1": ("pair", True, 1 / TEST), "swap": ("pair", True, 0.5), "swap_matching": ("pair", True, 0.5),
    "nlvr": ("statement", True, 0.5), "log10_seconds": ("model", False, None),
}  # fmt: skip
METRICS_RERANK = {"rerank": ("pair", True, 1 / TEST), "cap": ("pair", True, None)}


@functools.lru_cache(maxsize=4)
def pairs(world: str, count: int, seed: int, test: bool) -> dict[str, Tensor]:
    """Pictures of two things with caption, caption with swapped colours, and caption with both colours masked."""
    things = scenes.draw(count, (2, 2), seed, distinct=True)
    pictures = scenes.render(things, store.project_root() / "data", seed, world=world, test=test)
    texts = [scenes.encode(scenes.captions(things, seed, swap=swap), LENGTH) for swap in (False, True)]
    made = {"image": scenes.tiles(pictures, 12), "text": texts[0], "swapped": texts[1]}
    return {name: torch.from_numpy(values) for name, values in made.items()}


def build(arm: str, seed: int) -> Encoder:
    """An untrained model of an architecture."""
    plan = ARCHITECTURES[arm]
    d = plan.get("width", 64)
    return Encoder(
        Shape(**plan, length=LENGTH, heads={"words": len(scenes.WORDS), "match": 2, "to_text": d, "to_image": d}), seed
    )


def mask_words(ids: Tensor, hit: Tensor) -> Tensor:
    """ids with `<mask>` where `hit`."""
    return ids.masked_fill(hit, scenes.MASK)


def pretraining_loss(model: Encoder, arm: str, data: dict[str, Tensor], items: Tensor) -> Tensor:
    """InfoNCE for towers; masked language modelling and matching for fusion (half of the pairs are mismatched)."""
    ids, tokens = (data[name][items % len(data["text"])] for name in ("text", "image"))
    text, image, loss = model.text(ids), model.image(tokens), torch.zeros(())
    if model.shape.text:
        loss = loss + contrast(*model.vectors(text, image), model.logit_scale.exp())
    if not model.shape.joint:
        return loss
    draw = torch.Generator().manual_seed(int(items[0]))
    hit = (ids > scenes.END) & (torch.rand(ids.shape, generator=draw) < 0.3)
    order, half = torch.arange(len(ids)), len(ids) // 2
    order[:half] = order[:half].roll(1)
    both = model.text(torch.cat([mask_words(ids, hit), ids[order]]))
    hidden, _ = model.fuse(both, tuple(part.repeat(2, *[1] * (part.ndim - 1)) for part in image))
    loss = loss + functional.cross_entropy(model.head("words", hidden[: len(ids)][hit]), ids[hit])
    return loss + functional.cross_entropy(
        model.head("match", hidden[len(ids) :, 0]), (order == torch.arange(len(ids))).long()
    )


# ---- retrieval and swaps ---------------------------------------------------------------------------------------------


def matching(model: Encoder, text: tuple[Tensor, Tensor], image: tuple[Tensor, Tensor]) -> Tensor:
    """(B,) matching scores of pairs that go through the fusion layers together."""
    logits = model.head("match", model.fuse(text, image)[0][:, 0])
    return logits[:, 1] - logits[:, 0]


def all_pairs(model: Encoder, text: tuple[Tensor, Tensor], image: tuple[Tensor, Tensor]) -> Tensor:
    """(texts, pictures) matching scores: a joint pass per pair."""
    count = len(text[0])
    repeated = [tuple(part[i : i + 1].expand(count, *part.shape[1:]) for part in image) for i in range(len(image[0]))]
    return torch.stack([matching(model, text, one) for one in repeated], 1)


def cloze(model: Encoder, ids: Tensor, others: Tensor, image: tuple[Tensor, Tensor]) -> Tensor:
    """(B,) log-probability of the words of `ids` against those of `others`, where they differ and are masked."""
    hit = ids != others
    chances = model.head("words", model.fuse(model.text(mask_words(ids, hit)), image)[0]).log_softmax(-1)
    right, wrong = (chances.gather(2, rows[..., None])[..., 0] for rows in (ids, others))
    return ((right - wrong) * hit).sum(1)


def swapped_colours(ids: Tensor) -> Tensor:
    """The same caption, word for word, with its two colours exchanged."""
    first, last = scenes.ID[scenes.COLOURS[0]], scenes.ID[scenes.COLOURS[-1]]
    colour = (ids >= first) & (ids <= last)
    return torch.where(colour, (ids * colour).sum(1, keepdim=True) - ids, ids)


def retrieval(model: Encoder, world: str) -> tuple[dict[str, list[float]], dict[str, Any], dict[str, list[float]]]:
    """Scores, cost, and for models with towers and fusion what re-ranking the best k finds."""
    data = pairs(world, TEST, 10_000, True)
    ids, other, rerank = data["text"], swapped_colours(data["text"]), {}
    with torch.inference_mode():
        started = time.process_time()
        text, image = model.text(ids), model.image(data["image"])
        quick = (lambda said, shown: said @ shown.T)(*model.vectors(text, image)) if model.shape.text else None
        scores = all_pairs(model, text, image) if model.shape.joint else quick
        seconds = time.process_time() - started
        found = {"r1": recall(scores), "log10_seconds": [torch.tensor(seconds).log10().item()]}
        if model.shape.joint:
            found["swap"] = (cloze(model, ids, other, image) > 0).float().tolist()
            found["swap_matching"] = (scores.diag() > matching(model, model.text(other), image)).float().tolist()
        else:
            said, shown = model.vectors(model.text(other), image)
            found["swap"] = (quick.diag() > (said * shown).sum(1)).float().tolist()
        if model.shape.joint and model.shape.text:
            rerank = shortlists(quick, scores)
    passes = {
        "joint_passes": len(ids) ** 2 * bool(model.shape.joint),
        "tower_passes": 2 * len(ids) * bool(model.shape.text),
    }
    return found, passes | {"retrieval_seconds": round(seconds, 3)}, rerank


def shortlists(quick: Tensor, slow: Tensor) -> dict[str, dict[str, list[float]]]:
    """V8: per k whether the right picture is among the k best of `quick`, and first of those by `slow`."""
    right, found = torch.arange(len(quick)), {}
    for k in KEPT:
        best = quick.topk(k, 1).indices
        chosen = best.gather(1, slow.gather(1, best).argmax(1, keepdim=True))[:, 0]
        found[f"k={k}"] = {"rerank": (chosen == right).float().tolist(),
                           "cap": (best == right[:, None]).any(1).float().tolist()}  # fmt: skip
    return found


# ---- statements about two pictures -----------------------------------------------------------------------------------


class TwoPictures(nn.Module):
    """NLVR2's form: each picture with the statement, then a network on both; towers give vectors and their products."""

    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.model, d = model, model.shape.width
        self.up, self.lm_head = nn.Linear((2 if model.shape.joint else 5) * d, 128), nn.Linear(128, 2)

    def forward(self, ids: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """(B, 2) logits of false and true."""
        text, images = self.model.text(ids), [self.model.image(tokens) for tokens in (first, second)]
        if self.model.shape.joint:
            parts = [self.model.fuse(text, image)[0][:, 0] for image in images]
        else:
            (said, one), (_, two) = (self.model.vectors(text, image, unit=False) for image in images)
            parts = [said, one, two, said * one, said * two]
        return self.lm_head(functional.gelu(self.up(torch.cat(parts, 1))))


@functools.lru_cache(maxsize=4)
def statements(world: str, count: int, seed: int, test: bool) -> list[Tensor]:
    """Texts, first and second pictures, truth."""
    first, second, texts, truth = scenes.statements(count, seed)
    data = store.project_root() / "data"
    images = [
        scenes.tiles(scenes.render(t, data, seed + k, world=world, test=test), 12)
        for k, t in enumerate((first, second))
    ]
    return [torch.from_numpy(part) for part in (scenes.encode(texts, LENGTH), *images, truth)]


def reason(model: Encoder, world: str, settings: dict[str, Any], seed: int) -> list[float]:
    """Fine-tune everything on statements; right answers on held-out ones."""
    both, (ids, one, two, truth) = TwoPictures(model), statements(world, settings["statements"], 500 + seed, False)

    def loss(items: Tensor) -> Tensor:
        items = items % len(ids)
        return functional.cross_entropy(both(ids[items], one[items], two[items]), truth[items])

    train(both, loss, settings["reason_steps"], settings["batch"], seed)
    ids, one, two, truth = statements(world, settings["test_statements"], 20_000, True)
    with torch.inference_mode():
        return (both(ids, one, two).argmax(1) == truth).float().tolist()


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Pre-train one architecture on one world, retrieve, re-rank, and fine-tune on statements."""
    torch.set_num_threads(1)
    settings, seed, plan = shard["settings"], shard["seed"], shard["plan"]
    model, started = build(plan["architecture"], seed), time.process_time()
    data = pairs(plan["world"], settings["scenes"], seed + 1, False)
    train(model, lambda items: pretraining_loss(model, plan["architecture"], data, items), settings["steps"],
          settings["batch"], seed)  # fmt: skip
    spent = round(time.process_time() - started, 1)
    scores, cost, rerank = retrieval(model, plan["world"])
    scores["nlvr"] = reason(model, plan["world"], settings, seed)
    cost = {"parameters": parameters(model), "train_seconds": spent, **cost}
    return {
        "arm": plan["architecture"],
        "world": plan["world"],
        "seed": seed,
        "scores": scores,
        "cost": cost,
        "rerank": rerank,
    }


def arms() -> dict[str, dict[str, Any]]:
    """Architectures in either world."""
    return {f"{arm}, {world}": {"architecture": arm, "world": world} for world in WORLDS for arm in ARCHITECTURES}


def evidence(results: list[dict[str, Any]], settings: dict[str, Any], world: str) -> dict[str, Any]:
    """V1 in one world, with chance as a constant arm."""
    constant = [0.5] * settings["test_statements"]
    mine = [r for r in results if r["world"] == world] + [
        {"arm": "chance", "seed": None, "scores": {"nlvr": constant, "swap": [0.5] * TEST}}
    ]
    asked = {"pair": TEST, "statement": settings["test_statements"], "model": 1}
    return as_evidence("survey_vlp-fusion", mine, METRICS, asked)


def rerank_evidence(results: list[dict[str, Any]]) -> dict[str, Any]:
    """V8: the hybrid model of the emoji world."""
    mine = [
        {"arm": arm, "seed": r["seed"], "scores": scores}
        for r in results if r["world"] == "emoji" for arm, scores in r["rerank"].items()
    ]  # fmt: skip
    return as_evidence("survey_vlp-fusion", mine, METRICS_RERANK, {"pair": TEST})
