"""V5, masks that teach: which words and patches to hide (sections 4.1 and 4.2)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmlib import store
from mmlib.survey_vlp import scenes
from mmlib.survey_vlp.encoder import Encoder, Shape, parameters, train
from mmlib.survey_vlp.questions import HELD_OUT

PLACED = 22  # tokens of a caption with places, nouns in two pieces
TEXT_MASKS, IMAGE_MASKS = ("random", "whole word", "span", "content"), ("random", "block", "attended", "same word")


@functools.lru_cache(maxsize=6)
def placed(count: int, seed: int, test: bool = False) -> dict[str, Tensor]:
    """Scenes of two things: sixteen patches, captions with places and nouns in two pieces, a visual word per patch."""
    things = scenes.draw(count, (2, 2), seed, distinct=True)
    patches = scenes.tiles(scenes.render(things, store.project_root() / "data", seed, test=test), 6)
    text = scenes.encode(scenes.captions(things, seed, places=True, pieces=True), PLACED)
    distances = (patches**2).sum(-1)[..., None] - 2 * patches @ codebook().T + (codebook() ** 2).sum(-1)
    made = {"image": patches, "text": text, "visual": distances.argmin(-1)}
    return {name: torch.from_numpy(values) for name, values in made.items()}


@functools.cache
def codebook(size: int = 24) -> np.ndarray:
    """(24, 108) centres of patches: the visual dictionary."""
    from scipy.cluster.vq import kmeans2

    things = scenes.draw(256, (2, 2), 77, distinct=True)
    patches = scenes.tiles(scenes.render(things, store.project_root() / "data", 77), 6).reshape(-1, 108)
    return kmeans2(patches.astype(float), size, minit="++", seed=0)[0].astype(np.float32)


def hide_words(ids: Tensor, mask: str, draw: torch.Generator) -> Tensor:
    """bool (B, T), two tokens or more a caption: any two, one after the other, or whole words (of content only)."""
    content = (ids >= 4) & (ids < scenes.ID["zero"])  # colors, nouns, places
    second = (ids >= scenes.ID[scenes.PIECES[0]]) & (ids <= scenes.ID[scenes.PIECES[-1]])
    chance = torch.rand(ids.shape, generator=draw)
    start = {"content": content, "whole word": (ids > scenes.END) & ~second}.get(mask, ids > scenes.END)
    if mask == "span":
        start &= functional.pad(ids[:, 1:], (0, 1)) > scenes.END
    keep = torch.where(start, chance, -1.0)
    hit = torch.zeros_like(start).scatter(1, keep.topk(1 if mask == "span" else 2).indices, True)
    following = functional.pad(hit[:, :-1], (1, 0))
    return hit | following if mask == "span" else hit | (following & second) if mask != "random" else hit


def hide_patches(model: Encoder, data: dict[str, Tensor], mask: str, draw: torch.Generator) -> Tensor:
    """bool (B, 16), about four patches: any, those of a cell, a pivot and three it attends to, one visual word."""
    image, count = data["image"], len(data["image"])
    pivot, none = torch.randint(16, (count, 1), generator=draw), torch.zeros(count, 16).bool()
    if mask == "random":
        return none.scatter(1, torch.rand(count, 16, generator=draw).topk(4).indices, True)
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
    return none.scatter(1, chosen.topk(4).indices, True)


def neighbours(image: Tensor, hit: Tensor) -> Tensor:
    """(B, 16, 108): every patch as the mean of its visible neighbours in four directions, else of all visible."""
    grid, seen = image.view(-1, 4, 4, image.shape[2]), (~hit).view(-1, 4, 4, 1).float()
    both = functional.pad(torch.cat([grid * seen, seen], -1), (0, 0, 1, 1, 1, 1))  # (B, 6, 6, 109)
    near = both[:, :-2, 1:-1] + both[:, 2:, 1:-1] + both[:, 1:-1, :-2] + both[:, 1:-1, 2:]
    rest = both.sum((1, 2), keepdim=True)
    near = torch.where(near[..., -1:] > 0, near, rest)
    return (near[..., :-1] / near[..., -1:].clamp(min=1)).reshape(image.shape)


def word_nats(model: Encoder, ids: Tensor, hit: Tensor, image: Tensor) -> Tensor:
    """(B,) mean nats of masked words."""
    logits = model.head("words", model(ids.masked_fill(hit, scenes.MASK), image)[0])
    nats = functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
    return (nats * hit).sum(1) / hit.sum(1)


def patch_error(said: Tensor, hit: Tensor, image: Tensor) -> Tensor:
    """(B,) mean squared error of hidden patches that were said to be `said` (B, 16, 108)."""
    return (((said - image) ** 2).mean(2) * hit).sum(1) / hit.sum(1)


def imagined(model: Encoder, ids: Tensor, hit: Tensor, image: Tensor) -> Tensor:
    """(B, 16, 108): pixels of every patch, those of hidden ones from all others and the caption."""
    return model.head("pixels", model(ids, torch.where(hit[..., None], model.embed_masked, image))[1])


def run_masks(arm: str, mask: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train under one mask; how much the loss rises when the other modality belongs to another scene."""
    textual, data = arm.startswith("text"), placed(settings["scenes"], seed + 1)
    shape = Shape(joint=2, tokens=16, values=108, length=PLACED, heads={"words": len(scenes.WORDS), "pixels": 108})
    model, draw = Encoder(shape, seed), torch.Generator().manual_seed(seed)

    def loss(items: Tensor) -> Tensor:
        part = {name: values[items % len(data["text"])] for name, values in data.items()}
        ids, image = part["text"], part["image"]
        if textual:
            return word_nats(model, ids, hide_words(ids, mask, draw), image).mean()
        hit = hide_patches(model, part, mask, draw)
        return patch_error(imagined(model, ids, hit, image), hit, image).mean()

    train(model, loss, settings["mask_steps"], settings["batch"], seed)
    test, draw = placed(settings["test_scenes"], HELD_OUT, True), torch.Generator().manual_seed(1)
    ids, image = test["text"], test["image"]
    with torch.inference_mode():
        if textual:
            hit = hide_words(ids, mask, draw)
            true, other = (word_nats(model, ids, hit, shown) for shown in (image, image.roll(1, 0)))
            scores = {"loss": true, "use": other - true}
        else:
            hit = hide_patches(model, test, mask, draw)
            true, other = (patch_error(imagined(model, said, hit, image), hit, image) for said in (ids, ids.roll(1, 0)))
            scores = {"error": true, "copy": patch_error(neighbours(image, hit), hit, image), "text_use": other - true}
    cost = {"parameters": parameters(model), "hidden_percent": 100 * hit.float().mean().item()}
    return {"scores": {name: values.tolist() for name, values in scores.items()}, "cost": cost}
