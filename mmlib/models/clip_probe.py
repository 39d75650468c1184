"""What a trained CLIP has learned about the world, measured on scenes it never saw."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mmlib.metrics import retrieval as ranking
from mmlib.models import clip
from mmlib.world import language
from mmlib.world.nouns import by_name
from mmlib.world.render import Renderer
from mmlib.world.scenes import Scene

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel, PreTrainedTokenizerBase


def retrieval(
    model: CLIPModel, tokenizer: PreTrainedTokenizerBase, scenes: list[Scene], renderer: Renderer, group: int
) -> float:
    """Share of pictures whose own tags are the most similar of `group` texts (mean over groups)."""
    draw, hits = random.Random("probe/tags"), []
    for start in range(0, len(scenes) - group + 1, group):
        part = scenes[start : start + group]
        texts = [language.tags(scene, draw) for scene in part]
        hits += ranking.recall_at(clip.similarity(model, tokenizer, renderer.render_all(part), texts), 1).tolist()
    return round(sum(hits) / len(hits), 6)


def names_from_cells(
    model: CLIPModel, train: list[Scene], test: list[Scene], renderer: Renderer, seed: int, rounds: int = 12
) -> float:
    """Accuracy of a small classifier that reads a thing's name off the vector of its cell (second-last layer)."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    seen, names = _cells(model, train, renderer)
    new, true = _cells(model, test, renderer)
    mean, deviation = seen.mean(0), seen.std(0) + 1e-5
    head = torch.nn.Sequential(
        torch.nn.Linear(seen.shape[1], 256), torch.nn.GELU(), torch.nn.Linear(256, len(by_name()))
    )
    optimizer = torch.optim.AdamW(head.parameters(), 1e-3)
    for _ in range(rounds):
        for part in torch.randperm(len(seen)).split(256):
            loss = cross_entropy(head((seen[part] - mean) / deviation), names[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        return round((head((new - mean) / deviation).argmax(1) == true).float().mean().item(), 6)


def _cells(model: CLIPModel, scenes: list[Scene], renderer: Renderer) -> tuple[Tensor, Tensor]:
    """Vectors (things, D) of the cells that hold a thing, and the numbers of the things' names."""
    import torch

    numbers = {name: number for number, name in enumerate(by_name())}
    vectors, names = [], []
    for start in range(0, len(scenes), 256):
        part = scenes[start : start + 256]
        with torch.inference_mode():
            images = clip.pixels(renderer.render_all(part))
            layer = model.vision_model(pixel_values=images, output_hidden_states=True).hidden_states[-2][:, 1:]
        for scene, row in zip(part, layer, strict=True):
            vectors += [row[o.cell] for o in scene.objects]
            names += [numbers[o.noun] for o in scene.objects]
    return torch.stack(vectors).clone(), torch.tensor(names)
