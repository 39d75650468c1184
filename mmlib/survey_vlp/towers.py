"""V2, why a dot product cannot reason; V7, contrastive learning in practice (sections 3.2 and 4.4)."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmlib import store
from mmlib.survey_vlp import scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, contrast, parameters, train
from mmlib.survey_vlp.records import as_evidence

# ---- V2 --------------------------------------------------------------------------------------------------------------

TABLES = ("greater", "match", "subset", "parity")
DIMENSIONS = (1, 2, 4, 8, 16, 32)
ROWS = 64
METRICS_RANK = {name: ("picture", True, 0.5) for name in TABLES}


def truth(name: str) -> Tensor:
    """bool (64, 64): does caption j fit picture i, both sets of six attributes written as numbers?"""
    i, j = torch.arange(ROWS)[:, None], torch.arange(ROWS)
    shared = sum((i & j) >> bit & 1 for bit in range(6))
    return {"greater": i > j, "match": i == j, "subset": (i & j) == j, "parity": shared % 2 == 1}[name]


def free_vectors(table: Tensor, d: int, seeds: list[int], steps: int, interaction: bool) -> tuple[np.ndarray, int]:
    """Fit free vectors of every picture and caption to a truth table by balanced logistic loss, all seeds side by side.

    Args:
        interaction: 24 hidden units on [u, v, u * v] decide, else the dot product and a bias.
    Returns:
        (S, 64) balanced share of right cells per picture, and the number of weights of one fit.
    """
    target, count = table.float(), len(seeds)
    weight = torch.where(table, 0.5 / table.sum(), 0.5 / (~table).sum())  # (64, 64), sums to 1
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]

    def fresh(*shape: int, scale: float) -> Tensor:
        return (scale * torch.stack([torch.randn(*shape, generator=g) for g in draws])).requires_grad_()

    u, v, bias = fresh(ROWS, d, scale=0.5), fresh(ROWS, d, scale=0.5), fresh(1, 1, scale=0.0)
    hidden = [fresh(3 * d, 24, scale=d**-0.5), fresh(1, 24, scale=0.0), fresh(24, 1, scale=0.2)] * interaction
    optimizer = torch.optim.Adam([u, v, bias, *hidden], 0.03)
    for _ in range(steps):
        scores = u @ v.transpose(1, 2) + bias  # (S, 64, 64)
        if interaction:
            a, b = u[:, :, None].expand(-1, -1, ROWS, -1), v[:, None].expand(-1, ROWS, -1, -1)
            pairs = torch.cat([a, b, a * b], -1).view(count, -1, 3 * d)  # (S, 64 * 64, 3d)
            scores = (torch.relu(pairs @ hidden[0] + hidden[1]) @ hidden[2]).view(count, ROWS, ROWS) + bias
        loss = functional.binary_cross_entropy_with_logits(scores, target.expand_as(scores), reduction="none")
        optimizer.zero_grad()
        (loss * weight).sum().backward()
        optimizer.step()
    right = ((scores > 0) == table).float()
    return (ROWS * (right * weight).sum(2)).detach().numpy(), sum(w[0].numel() for w in (u, v, bias, *hidden))


def rank_results(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Every dimension with a dot product, and a small network, each fitted to every table."""
    torch.set_num_threads(1)
    plans = {f"dot product, d={d}": (d, False) for d in DIMENSIONS} | {"network, d=6": (6, True)}
    results = []
    for arm, (d, interaction) in plans.items():
        fits = {t: free_vectors(truth(t), d, settings["seeds"], settings["free_steps"], interaction) for t in TABLES}
        results += [
            {"arm": arm, "seed": seed, "scores": {t: fits[t][0][number].tolist() for t in TABLES},
             "cost": {"parameters": fits["parity"][1]}}
            for number, seed in enumerate(settings["seeds"])
        ]  # fmt: skip
    return results


# ---- V7 --------------------------------------------------------------------------------------------------------------

BATCH, STARTS = 128, 8  # pairs a step; batches on which the untrained loss is measured
ARMS = {
    "1 pair": {"group": 1}, "8 pairs": {"group": 8}, "32 pairs": {"group": 32}, "128 pairs": {},
    "8 pairs and queue": {"group": 8, "queue": 256}, "temperature 1": {"scale": 1.0},
    "temperature 0.07": {"scale": 1 / 0.07}, "temperature 0.005": {"scale": 200.0}, "swapped negatives": {"hard": True},
    "momentum targets": {"soft": 0.4}, "half wrong": {"noise": 0.5},
    "half wrong, momentum targets": {"noise": 0.5, "soft": 0.4},
    "own targets, free norm": {"own": True, "free": True}, "own targets, unit norm": {"own": True},
}  # fmt: skip
METRICS_CONTRAST = {
    "r1": ("pair", True, 1 / BATCH), "swap": ("pair", True, 0.5), "alignment": ("pair", False, None),
    "uniformity": ("model", False, None), "gap": ("model", False, None), "initial": ("batch", False, None),
}  # fmt: skip


def pairs(count: int, seed: int, test: bool = False, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (N, 4, 432), captions (N, 9) and captions with swapped colours.

    A share `noise` of the captions is foreign.
    """
    data = store.project_root() / "data"
    things = scenes.draw(count, (2, 2), seed, distinct=True)
    pictures = scenes.tiles(scenes.render(things, data, seed, test=test), 12)
    texts, swapped = (scenes.encode(scenes.captions(things, seed + k, swap=k == 1), 9) for k in (0, 1))
    wrong = np.flatnonzero(np.random.default_rng(seed).random(count) < noise)
    texts[wrong] = texts[np.roll(wrong, 1)]
    return torch.from_numpy(pictures), torch.from_numpy(texts), torch.from_numpy(swapped)


class Contrast:
    """The loss of a plan; keeps the momentum model and its queue of texts where the plan has them."""

    def __init__(self, model: Encoder, plan: dict[str, Any], data: tuple[Tensor, Tensor, Tensor], steps: int) -> None:
        self.model, self.plan, self.data, self.steps, self.step = model, plan, data, steps, 0
        self.slow = copy.deepcopy(model).requires_grad_(False) if {"queue", "soft"} & set(plan) else None
        self.queue = torch.zeros(0, model.shape.width)

    def __call__(self, items: Tensor) -> Tensor:
        """items (B,) -> loss; pairs compete within groups of `group`."""
        pictures, texts, swapped = (part[items % len(self.data[0])] for part in self.data)
        text, image = self.model.text(texts), self.model.image(pictures)
        said, shown = self.model.vectors(text, image, unit=not self.plan.get("free"))
        scale = self.plan.get("scale") or self.model.logit_scale.exp()
        self.step += 1
        if self.plan.get("own"):
            return own_targets(said, shown)
        if self.slow is not None:
            return self._with_momentum(said, shown, pictures, texts, scale)
        extra = self.model.vectors(self.model.text(swapped), image)[0] if self.plan.get("hard") else None
        group = self.plan.get("group", BATCH)
        parts = zip(said.split(group), shown.split(group), strict=True)
        return torch.stack([contrast(a, b, scale, extra) for a, b in parts]).mean()

    def _with_momentum(self, said: Tensor, shown: Tensor, pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        with (
            torch.no_grad()
        ):  # He et al. 2020; soft targets as in ALBEF (Li et al. 2021), ramped up over half of the run
            for slow, fast in zip(self.slow.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - min(0.95, self.step / (self.step + 10)))
            slow_said, slow_shown = self.slow.vectors(self.slow.text(texts), self.slow.image(pictures))
        if "queue" in self.plan:
            parts = zip(said.split(self.plan["group"]), shown.split(self.plan["group"]), strict=True)
            loss = torch.stack([contrast(a, b, scale, self.queue) for a, b in parts]).mean()
            self.queue = torch.cat([slow_said, self.queue])[: self.plan["queue"]]
            return loss
        share = self.plan["soft"] * min(1.0, 2 * self.step / self.steps)
        soft = scale.detach() * slow_shown @ slow_said.T
        targets = [(1 - share) * torch.eye(len(said)) + share * s.softmax(1) for s in (soft, soft.T)]
        logits = scale * shown @ said.T
        return sum(functional.cross_entropy(x, t) for x, t in zip((logits, logits.T), targets, strict=True)) / 2


def own_targets(said: Tensor, shown: Tensor) -> Tensor:
    """A widely copied loss: targets are the batch's own similarities, through which gradients flow, temperature 1."""
    logits = said @ shown.T
    targets = ((said @ said.T + shown @ shown.T) / 2).softmax(1)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets.T)) / 2


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Train two small towers by a plan; retrieval among 128 held-out pairs, and the geometry of their vectors."""
    torch.set_num_threads(1)
    settings, plan, seed = shard["settings"], shard["plan"], shard["seed"]
    data = pairs(settings["scenes"], seed + 1, noise=plan.get("noise", 0.0))
    heads = {"to_text": settings["width"], "to_image": settings["width"]}
    model = Encoder(Shape(settings["width"], text=1, image=1, length=9, heads=heads), seed)
    loss = Contrast(model, plan, data, settings["steps"])
    start = [loss.__class__(model, {}, data, 1)(torch.arange(BATCH) + BATCH * k).item() for k in range(STARTS)]
    started = time.process_time()
    train(model, loss, settings["steps"], BATCH, seed)
    seconds = time.process_time() - started
    with torch.inference_mode():
        pictures, texts, swapped = pairs(BATCH, 10_000, test=True)
        said, shown = model.vectors(model.text(texts), model.image(pictures))
        other, _ = model.vectors(model.text(swapped), model.image(pictures))
    scores = {"r1": recall(shown @ said.T), "swap": ((shown * said).sum(1) > (shown * other).sum(1)).float().tolist(),
              "alignment": ((said - shown) ** 2).sum(1).tolist(), "uniformity": [uniformity(shown)],
              "gap": [(said.mean(0) - shown.mean(0)).norm().item()]}  # fmt: skip
    scores |= {"initial": start} if shard["arm"] == "128 pairs" else {}
    cost = {"parameters": parameters(model), "steps": settings["steps"], "cpu_seconds": round(seconds, 1)}
    return {"arm": shard["arm"], "seed": seed, "scores": scores, "cost": cost}


def recall(similarity: Tensor) -> list[float]:
    """R@1 per row; ties count against chance, so that vectors which all coincide score 1 / N."""
    from mmlib.metrics.retrieval import recall_at

    return recall_at(similarity.round(decimals=5).numpy(), 1).tolist()


def uniformity(x: Tensor) -> float:
    """log mean exp(-2 |x - y|²) over pairs (Wang and Isola 2020): 0 where all coincide."""
    return torch.pdist(x).pow(2).mul(-2).exp().mean().log().item()


# ---- evidence --------------------------------------------------------------------------------------------------------


def rank_evidence(results: list[dict[str, Any]]) -> dict[str, Any]:
    """V2, per picture."""
    return as_evidence("survey_vlp-towers", results, METRICS_RANK, {"picture": ROWS})


def contrast_evidence(results: list[dict[str, Any]]) -> dict[str, Any]:
    """V7, with the two constants that its cards compare with."""
    fixed = [("chance", {"r1": [1 / BATCH] * BATCH}), ("ln 128", {"initial": [float(np.log(BATCH))] * STARTS})]
    constants = [{"arm": arm, "seed": None, "scores": scores} for arm, scores in fixed]
    asked = {"pair": BATCH, "model": 1, "batch": STARTS}
    return as_evidence("survey_vlp-towers", [*results, *constants], METRICS_CONTRAST, asked)
