"""What a trained LLaVA has learned about the world in stage 1, measured on scenes it never saw."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from mmlib.models import align, clip, llava, lookups
from mmlib.world import language
from mmlib.world.render import Renderer
from mmlib.world.scenes import Scene

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase


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


def plain_questions(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scenes: list[Scene],
    renderer: Renderer,
    seed: int,
) -> float:
    """Share of the words answered right in stage 1's dialogues, the true answers before each standing in the text."""
    import torch

    draw = random.Random(f"probe/plain/{seed}")
    rows = [lookups.dialogue_row(tokenizer, scene, draw, model.config.image_seq_length) for scene in scenes]
    batch = llava.pad_batch(rows, tokenizer.pad_token_id)
    labels = batch.pop("labels")[:, 1:]
    with torch.inference_mode():
        guess = model(**batch, pixel_values=clip.pixels(renderer.render_all(scenes))).logits[:, :-1].argmax(-1)
    asked = (labels != llava.IGNORED) & (labels != tokenizer.eos_token_id)
    return round(((guess == labels) & asked).sum().item() / asked.sum().item(), 6)
