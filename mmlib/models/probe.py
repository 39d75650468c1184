"""What a trained CLIP or LLaVA has learned about the world, measured on scenes it never saw."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from mmlib.metrics import retrieval as ranking
from mmlib.models import align, clip, llava
from mmlib.world import language
from mmlib.world.nouns import by_name
from mmlib.world.render import Renderer
from mmlib.world.scenes import Scene

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel, LlavaForConditionalGeneration, PreTrainedTokenizerBase


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


def captions(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, scenes: list[Scene], renderer: Renderer
) -> dict[str, float]:
    """Share of things whose name is in the caption, and whose name and place are said in one phrase."""
    questions = [align.CAPTION_QUESTIONS[0]] * len(scenes)
    said = llava.answer(model, tokenizer, clip.pixels(renderer.render_all(scenes)), questions, new_tokens=90)
    named = placed = total = 0
    for scene, text in zip(scenes, said, strict=True):
        words = text.split()
        for thing in scene.objects:
            total += 1
            named += thing.noun in words
            placed += any(_phrase(thing, order) in text for order in (0, 1))
    return {"caption_names": round(named / total, 6), "caption_phrases": round(placed / total, 6)}


def _phrase(thing: Any, order: int) -> str:
    fields = {"size": thing.size, "noun": thing.noun, "colour": thing.colour, "where": thing.where}
    return language.THING[False][order].format(**fields)


def lookups(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scenes: list[Scene],
    renderer: Renderer,
    seed: int,
) -> dict[str, float]:
    """Share of look-ups answered: `find` a thing's place, `name` what is at a place."""
    import torch

    draw = random.Random(f"probe/lookups/{seed}")
    rows = [align.lookup_row(tokenizer, scene, draw, model.config.image_seq_length) for scene in scenes]
    batch = llava.pad_batch(rows, tokenizer.pad_token_id)
    labels = batch.pop("labels")
    with torch.inference_mode():
        guess = model(**batch, pixel_values=clip.pixels(renderer.render_all(scenes))).logits.argmax(-1)
    result = {}
    for kind in ("find", "name"):
        # The answer stands two tokens after `find`; the token before an answer predicts it.
        asked = (batch["input_ids"][:, :-2] == tokenizer.convert_tokens_to_ids(kind)) & (labels[:, 2:] >= 0)
        right = guess[:, 1:-1] == labels[:, 2:]
        result[f"lookup_{kind}"] = round((right & asked).sum().item() / asked.sum().item(), 6)
    return result
