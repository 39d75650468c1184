"""V3, pre-training tasks one by one; V4, what to tokenise (sections 2 and 4); runs V5 as well."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.survey_vlp import questions, scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, contrast, parameters, train
from mmlib.survey_vlp.masks import IMAGE_MASKS, TEXT_MASKS, run_masks
from mmlib.survey_vlp.questions import HELD_OUT, LENGTH
from mmlib.survey_vlp.records import as_evidence

REPEATS = 10  # of what is timed
TASKS = {
    "scratch": (), "MLM": ("mlm",), "MLM+ITM": ("mlm", "itm"), "MLM+ITM+MRC": ("mlm", "itm", "mrc"),
    "MLM+ITM+MRFR": ("mlm", "itm", "mrfr"), "MLM+ITM+CMCL": ("mlm", "itm", "cmcl"), "PrefixLM": ("prefix",),
}  # fmt: skip
MISSED = {"region": 0.0, "region, 20% missed": 0.2, "region, 50% missed": 0.5}
COPIED = {f"picture, {mask}": f"copied neighbours, {mask}" for mask in IMAGE_MASKS if mask != "attended"}
ARMS: dict[str, dict[str, Any]] = {
    **{arm: {"study": "tasks", "tasks": list(tasks)} for arm, tasks in TASKS.items()},
    **{arm: {"study": "tokens"} for arm in (*MISSED, "grid", "patch")},
    **{f"text, {mask}": {"study": "masks", "mask": mask} for mask in TEXT_MASKS},
    **{f"picture, {mask}": {"study": "masks", "mask": mask} for mask in IMAGE_MASKS},
}  # fmt: skip
METRICS = {
    "tasks": {"color": ("question", True, 1 / 6), "color_nats": ("question", False, None)},
    "tokens": {
        **{kind: ("question", True, 0.0) for kind in scenes.KINDS},
        "log10_embed_seconds": ("model", False, None),
        **{f"{kind}_nats": ("question", False, None) for kind in scenes.KINDS},
    },
    "masks": {name: ("scene", False, None) for name in ("loss", "use", "error", "copy", "text_use")},
}


# ---- V3 --------------------------------------------------------------------------------------------------------------


def task_loss(model: Encoder, task: str, ids: Tensor, image: Tensor, nouns: Tensor, draw: torch.Generator) -> Tensor:
    """One of the survey's objectives on captions (B, T) and cells (B, 4, 432) that show `nouns` (B, 4)."""
    if task == "cmcl":
        return contrast(*model.vectors(model.text(ids), model.image(image)), model.logit_scale.exp())
    if task == "prefix":
        logits = model.head("words", model(ids[:, :-1], image, causal=True)[0])
        return functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=scenes.PAD)
    if task == "itm":  # half of the pictures belong to another caption
        order, half = torch.arange(len(ids)), len(ids) // 2
        order[:half] = order[:half].roll(1)
        logits = model.head("match", model(ids[order], image)[0][:, 0])
        return functional.cross_entropy(logits, (order == torch.arange(len(ids))).long())
    if task == "mlm":
        hit = (ids > scenes.END) & (torch.rand(ids.shape, generator=draw) < 0.3)
        hidden, _ = model(ids.masked_fill(hit, scenes.MASK), image)
        return functional.cross_entropy(model.head("words", hidden[hit]), ids[hit])
    hit = torch.rand(image.shape[:2], generator=draw) < 0.3
    _, hidden = model(ids, torch.where(hit[..., None], model.embed_masked, image))
    if task == "mrc":
        return functional.cross_entropy(model.head("nouns", hidden[hit]), nouns[hit])
    return functional.mse_loss(model.head("pixels", hidden[hit]), image[hit])


def run_tasks(arm: str, tasks: list[str], settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Pre-train with the arm's tasks in turn (a pass each, equal steps), then few steps of color questions."""
    data = questions.pool(settings["scenes"], seed + 1)
    image, count = questions.tiles(data), len(data["text"])
    nouns = torch.where(data["things"][..., 0] < 0, len(scenes.NAMES), data["things"][..., 0])
    heads = {"words": len(scenes.WORDS), "match": 2, "nouns": len(scenes.NAMES) + 1, "pixels": 432}
    model = Encoder(Shape(joint=2, length=LENGTH, heads=heads | {"to_text": 64, "to_image": 64}), seed)
    draw = torch.Generator().manual_seed(seed)

    def pretrain(items: Tensor) -> Tensor:
        task = tasks[int(items[0]) // len(items) % len(tasks)]
        items = items % count
        return task_loss(model, task, data["text"][items], image[items], nouns[items], draw)

    def tune(items: Tensor) -> Tensor:
        items = items % count
        return functional.cross_entropy(
            questions.answer(model, data["ids"][0, items], image[items]), data["answers"][0, items]
        )

    if tasks:
        train(model, pretrain, settings["task_steps"], settings["batch"], seed)
    train(model, tune, settings["tune_steps"], settings["batch"], seed)
    test = questions.pool(settings["test_scenes"], HELD_OUT, test=True)
    with torch.inference_mode():
        logits = questions.answer(model, test["ids"][0], questions.tiles(test))
    passes = settings["task_steps"] * bool(tasks) + settings["tune_steps"]
    return {
        "scores": questions.judged(logits, test["answers"][0], "color"),
        "cost": {"parameters": parameters(model), "passes": passes},
    }


# ---- V4 --------------------------------------------------------------------------------------------------------------


class Grid(nn.Module):
    """Two convolutions: a picture (B, 24, 24, 3) becomes sixteen cells of a feature map (B, 16, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 4, 2, 1), nn.Conv2d(32, d, 3, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 24, 24, 3) -> (B, 16, d)."""
        return self.second(functional.gelu(self.first(pictures.permute(0, 3, 1, 2)))).flatten(2).transpose(1, 2)


def tokens(arm: str, data: dict[str, Tensor], seed: int) -> tuple[Tensor, Tensor | None]:
    """Visual tokens of every scene, and which are seen: boxes of things less those that a detector misses, or all."""
    if arm not in MISSED:
        return (data["pixels"] if arm == "grid" else questions.tiles(data, 6)), None
    full = data["things"][..., 0] >= 0
    return questions.tiles(data), full & (
        torch.rand(full.shape, generator=torch.Generator().manual_seed(seed)) >= MISSED[arm]
    )


def run_tokens(arm: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """A single stream over one kind of visual token, questions of all kinds; milliseconds for 1,000 pictures."""
    size = {"patch": (16, 108), "grid": (16, 1)}.get(arm, (4, 432))
    shape = Shape(joint=2, tokens=size[0], values=size[1], length=LENGTH, heads={"words": len(scenes.WORDS)})
    model = Encoder(shape, seed, Grid(shape.width) if arm == "grid" else None)
    data = questions.pool(settings["scenes"], seed + 1, repeat=True)
    image, seen = tokens(arm, data, seed)

    def loss(items: Tensor) -> Tensor:
        kind, scene = items % len(scenes.KINDS), items // len(scenes.KINDS) % len(image)
        logits = questions.answer(model, data["ids"][kind, scene], image[scene], None if seen is None else seen[scene])
        return functional.cross_entropy(logits, data["answers"][kind, scene])

    train(model, loss, settings["token_steps"], settings["batch"], seed)
    test, scores = questions.pool(settings["test_scenes"], HELD_OUT, repeat=True, test=True), {}
    image, seen = tokens(arm, test, 1)
    with torch.inference_mode():
        started = time.process_time()
        for _ in range(REPEATS):
            model.embed_pixels(image)
        between = time.process_time()
        for k, kind in enumerate(scenes.KINDS):
            scores |= questions.judged(questions.answer(model, test["ids"][k], image, seen), test["answers"][k], kind)
    spent = [(between - started) / REPEATS, (time.process_time() - between) / len(scenes.KINDS)]
    embed, whole = (1000 * seconds / len(image) for seconds in spent)  # seconds for 1,000 pictures
    scores["log10_embed_seconds"] = [float(np.log10(embed))]
    cost = {"parameters": parameters(model), "tokens": size[0], "embed_ms": 1000 * embed, "answer_ms": 1000 * whole}
    return {"scores": scores, "cost": cost}


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One model of V3, V4 or V5."""
    torch.set_num_threads(1)
    plan, started = dict(shard["plan"]), time.process_time()
    study = plan.pop("study")
    work = {"tasks": run_tasks, "tokens": run_tokens, "masks": run_masks}[study]
    found = work(shard["arm"], **plan, settings=shard["settings"], seed=shard["seed"])
    found["cost"]["cpu_seconds"] = round(time.process_time() - started, 1)
    return {"study": study, "arm": shard["arm"], "seed": shard["seed"], **found}


def evidence(results: list[dict[str, Any]], study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Per question (V3, V4) or scene (V5); copies of neighbours do not depend on seeds."""
    unit = next(iter(METRICS[study].values()))[0]
    mine = [r for r in results if r["study"] == study]
    first = [r for r in mine if r["arm"] in COPIED and r["seed"] == settings["seeds"][0]]
    mine += [{"arm": COPIED[r["arm"]], "seed": None, "scores": {"error": r["scores"]["copy"]}} for r in first]
    return as_evidence("survey_vlp-tasks", mine, METRICS[study], {unit: settings["test_scenes"], "model": 1})
