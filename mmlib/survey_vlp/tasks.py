"""V3, pre-training tasks one by one; V5, masks that teach (section 4)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmlib import store
from mmlib.survey_vlp import scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, contrast, parameters, train
from mmlib.survey_vlp.records import as_evidence

LENGTH, PLACED = 9, 22  # tokens of a caption without and with places
TASKS = {
    "scratch": (), "MLM": ("mlm",), "MLM+ITM": ("mlm", "itm"), "MLM+ITM+MRC": ("mlm", "itm", "mrc"),
    "MLM+ITM+MRFR": ("mlm", "itm", "mrfr"), "MLM+ITM+CMCL": ("mlm", "itm", "cmcl"), "PrefixLM": ("prefix",),
}  # fmt: skip
TEXT_MASKS, IMAGE_MASKS = ("random", "whole word", "span", "content"), ("random", "block", "attended", "same word")
ARMS: dict[str, dict[str, Any]] = {
    **{arm: {"study": "tasks", "tasks": tasks} for arm, tasks in TASKS.items()},
    **{f"text, {mask}": {"study": "masks", "mask": mask} for mask in TEXT_MASKS},
    **{f"picture, {mask}": {"study": "masks", "mask": mask} for mask in IMAGE_MASKS},
}  # fmt: skip
METRICS = {
    "tasks": {kind: ("question", True, 0.0) for kind in (*scenes.KINDS, "all")},
    "masks": {name: ("scene", False, None) for name in ("loss", "use", "error", "copy", "text_use")},
}


# ---- V3 --------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=6)
def pool(count: int, seed: int, test: bool = False) -> dict[str, Tensor]:
    """Scenes of two things: cells, captions, what each cell shows (nouns, then empty), questions of every kind."""
    things = scenes.draw(count, (2, 2), seed, distinct=True)
    pixels = scenes.render(things, store.project_root() / "data", seed, test=test)
    asked = [scenes.questions(things, kind, seed + k) for k, kind in enumerate(scenes.KINDS)]
    made = {
        "image": scenes.tiles(pixels, 12), "text": scenes.encode(scenes.captions(things, seed), LENGTH),
        "nouns": np.where(things[..., 0] < 0, len(scenes.NAMES), things[..., 0]),
        "ids": np.stack([scenes.encode(texts, 4) for texts, _ in asked]), "answers": np.stack([a for _, a in asked]),
    }  # fmt: skip
    return {name: torch.from_numpy(values) for name, values in made.items()}


def task_loss(model: Encoder, task: str, ids: Tensor, image: Tensor, nouns: Tensor, draw: torch.Generator) -> Tensor:
    """One of the survey's objectives on a batch of captions (B, T) and cells (B, 4, 432)."""
    if task == "cmcl":
        return contrast(*model.vectors(model.text(ids), model.image(image)), model.logit_scale.exp())
    if task == "prefix":
        hidden, _ = model(ids[:, :-1], image, causal=True)
        return functional.cross_entropy(
            model.head("words", hidden).transpose(1, 2), ids[:, 1:], ignore_index=scenes.PAD
        )
    if task == "itm":
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


def run_tasks(shard: dict[str, Any]) -> dict[str, Any]:
    """Pre-train with the arm's tasks in turn (a pass each, equal steps), fine-tune on questions, answer others."""
    settings, seed, tasks = shard["settings"], shard["seed"], shard["plan"]["tasks"]
    data, heads = (
        pool(settings["scenes"], seed + 1),
        {"words": len(scenes.WORDS), "match": 2, "nouns": 11, "pixels": 432},
    )
    model = Encoder(Shape(joint=2, length=LENGTH, heads=heads | {"to_text": 64, "to_image": 64}), seed)
    draw, count = torch.Generator().manual_seed(seed), len(data["text"])

    def pretrain(items: Tensor) -> Tensor:
        task = tasks[int(items[0]) // len(items) % len(tasks)]
        batch = (data[name][items % count] for name in ("text", "image", "nouns"))
        return task_loss(model, task, *batch, draw)

    def tune(items: Tensor) -> Tensor:
        kind, scene = items % 4, items // 4 % settings["labelled"]
        logits = model.head("words", model(data["ids"][kind, scene], data["image"][scene])[0][:, 0])
        return functional.cross_entropy(logits, data["answers"][kind, scene])

    if tasks:
        train(model, pretrain, settings["task_steps"], settings["batch"], seed)
    train(model, tune, settings["tune_steps"], settings["batch"], seed)
    test, scores = pool(settings["test_scenes"], 30_000, True), {}
    with torch.inference_mode():
        for k, kind in enumerate(scenes.KINDS):
            said = model.head("words", model(test["ids"][k], test["image"])[0][:, 0]).argmax(1)
            scores[kind] = (said == test["answers"][k]).float().tolist()
    scores["all"] = np.mean([scores[kind] for kind in scenes.KINDS], 0).tolist()
    return {"scores": scores, "cost": {"parameters": parameters(model), "passes": settings["task_steps"] * bool(tasks)}}


# ---- V5 --------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=6)
def placed(count: int, seed: int, test: bool = False) -> dict[str, Tensor]:
    """Scenes of two things: sixteen patches, captions with places and nouns in two pieces, a visual word per patch."""
    things = scenes.draw(count, (2, 2), seed, distinct=True)
    patches = scenes.tiles(scenes.render(things, store.project_root() / "data", seed, test=test), 6)
    text = scenes.encode(scenes.captions(things, seed, places=True, pieces=True), PLACED)
    words = np.linalg.norm(patches.reshape(-1, 1, 108) - codebook()[None], axis=-1).argmin(1).reshape(patches.shape[:2])
    made = {"image": patches, "text": text, "visual": words}
    return {name: torch.from_numpy(values) for name, values in made.items()}


@functools.cache
def codebook(size: int = 24) -> np.ndarray:
    """(24, 108) centres of patches: the visual dictionary."""
    from scipy.cluster.vq import kmeans2

    things = scenes.draw(256, (2, 2), 77, distinct=True)
    patches = scenes.tiles(scenes.render(things, store.project_root() / "data", 77), 6).reshape(-1, 108)
    return kmeans2(patches.astype(float), size, minit="++", seed=0)[0].astype(np.float32)


def hide_words(ids: Tensor, mask: str, draw: torch.Generator) -> Tensor:
    """bool (B, T), two tokens a caption: any two, one after the other, or whole words (of content words only)."""
    content = (ids >= 4) & (ids < scenes.ID["zero"])  # colours, nouns, places
    second = (ids >= scenes.ID[scenes.PIECES[0]]) & (ids <= scenes.ID[scenes.PIECES[-1]])
    chance = torch.rand(ids.shape, generator=draw)
    start = content if mask == "content" else (ids > scenes.END) & ~second if mask == "whole word" else ids > scenes.END
    if mask == "span":
        start &= functional.pad(ids[:, 1:], (0, 1)) > scenes.END
    keep = torch.where(start, chance, -1.0)
    hit = torch.zeros_like(start).scatter(1, keep.topk(1 if mask == "span" else 2).indices, True)
    if mask == "span":
        return hit | functional.pad(hit[:, :-1], (1, 0))
    return hit | (functional.pad(hit[:, :-1], (1, 0)) & second) if mask in ("whole word", "content") else hit


def hide_patches(model: Encoder, data: dict[str, Tensor], mask: str, draw: torch.Generator) -> Tensor:
    """bool (B, 16), about four patches: any, those of a cell, a pivot and three it attends to, one visual word."""
    image, count = data["image"], len(data["image"])
    pivot = torch.randint(16, (count, 1), generator=draw)
    if mask == "random":
        return torch.zeros(count, 16).bool().scatter(1, torch.rand(count, 16, generator=draw).topk(4).indices, True)
    if mask == "block":
        place = torch.arange(16)
        return (place // 8 * 2 + place % 4 // 2) == (pivot // 8 * 2 + pivot % 4 // 2)
    if mask == "same word":
        return data["visual"] == data["visual"].gather(1, pivot)
    with torch.no_grad():  # Visual Parsing's rule, with the first layer's own attention between patches
        x, block = model.image(image)[0], model.joint_blocks[0]
        x = block.norms[0](x)
        scores = block.itself.q(x) @ block.itself.kv(x)[..., : x.shape[-1]].transpose(1, 2)  # (B, 16, 16)
        chosen = scores.gather(1, pivot[..., None].expand(-1, 1, 16))[:, 0].scatter(1, pivot, torch.inf)
    return torch.zeros(count, 16).bool().scatter(1, chosen.topk(4).indices, True)


def neighbours(image: Tensor, hit: Tensor) -> Tensor:
    """(B, 16, 108): every patch as the mean of its visible neighbours in four directions, else of all visible."""
    grid, seen = image.view(-1, 4, 4, image.shape[2]), (~hit).view(-1, 4, 4, 1).float()
    total, weight = torch.zeros_like(grid), torch.zeros_like(seen)
    for x, out in ((grid * seen, total), (seen, weight)):
        out[:, 1:] += x[:, :-1]
        out[:, :-1] += x[:, 1:]
        out[:, :, 1:] += x[:, :, :-1]
        out[:, :, :-1] += x[:, :, 1:]
    rest = (grid * seen).sum((1, 2), keepdim=True) / seen.sum((1, 2), keepdim=True).clamp(min=1)
    return torch.where(weight > 0, total / weight.clamp(min=1), rest).view_as(image)


def word_nats(model: Encoder, ids: Tensor, hit: Tensor, image: Tensor) -> Tensor:
    """(B,) mean nats of masked words."""
    logits = model.head("words", model(ids.masked_fill(hit, scenes.MASK), image)[0])
    nats = functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    return (nats * hit).sum(1) / hit.sum(1)


def patch_error(model: Encoder, ids: Tensor, hit: Tensor, image: Tensor) -> Tensor:
    """(B,) mean squared error of masked patches."""
    said = model.head("pixels", model(ids, torch.where(hit[..., None], model.embed_masked, image))[1])
    return (((said - image) ** 2).mean(2) * hit).sum(1) / hit.sum(1)


def run_masks(shard: dict[str, Any]) -> dict[str, Any]:
    """Train under one mask; how much the loss rises when the other modality belongs to another scene."""
    settings, seed, mask = shard["settings"], shard["seed"], shard["plan"]["mask"]
    textual, data = shard["arm"].startswith("text"), placed(settings["scenes"], seed + 1)
    shape = Shape(joint=2, tokens=16, values=108, length=PLACED, heads={"words": len(scenes.WORDS), "pixels": 108})
    model, draw = Encoder(shape, seed), torch.Generator().manual_seed(seed)

    def loss(items: Tensor) -> Tensor:
        part = {name: values[items % len(data["text"])] for name, values in data.items()}
        if textual:
            return word_nats(model, part["text"], hide_words(part["text"], mask, draw), part["image"]).mean()
        return patch_error(model, part["text"], hide_patches(model, part, mask, draw), part["image"]).mean()

    train(model, loss, settings["mask_steps"], settings["batch"], seed)
    test, draw = placed(settings["test_scenes"], 60_000, True), torch.Generator().manual_seed(1)
    ids, image = test["text"], test["image"]
    with torch.inference_mode():
        if textual:
            hit = hide_words(ids, mask, draw)
            true, other = word_nats(model, ids, hit, image), word_nats(model, ids, hit, image.roll(1, 0))
            scores = {"loss": true.tolist(), "use": (other - true).tolist()}
        else:
            hit = hide_patches(model, test, mask, draw)
            true, other = patch_error(model, ids, hit, image), patch_error(model, ids.roll(1, 0), hit, image)
            copied = (((neighbours(image, hit) - image) ** 2).mean(2) * hit).sum(1) / hit.sum(1)
            scores = {"error": true.tolist(), "copy": copied.tolist(), "text_use": (other - true).tolist()}
    return {"scores": scores, "cost": {"parameters": parameters(model), "hidden": hit.float().mean().item()}}


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One model of V3 or V5."""
    torch.set_num_threads(1)
    study = shard["plan"]["study"]
    found = (run_tasks if study == "tasks" else run_masks)(shard)
    return {"study": study, "arm": shard["arm"], "seed": shard["seed"], **found}


def evidence(results: list[dict[str, Any]], study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Per question (V3) or scene (V5)."""
    mine, metrics = [r for r in results if r["study"] == study], METRICS[study]
    unit = next(iter(metrics.values()))[0]
    return as_evidence("survey_vlp-tasks", mine, metrics, {unit: settings["test_scenes"]})
