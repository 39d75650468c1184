"""One checkpoint, three tasks: retrieval, captioning and open-ended questions, all measured per clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mmlib.metrics import captions as caption_metrics
from mmlib.metrics import retrieval, vqa
from mmlib.models.clip import encode_texts
from mmlib.vlab import language
from mmlib.vlab.clip_base import LENGTH
from mmlib.vlab.data import Pairs

if TYPE_CHECKING:
    from torch import Tensor

    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import Vlab

BATCH = 100
ANSWER_TOKENS, CAPTION_TOKENS = 3, 16
# What `training.seer` makes: items of `Pairs` -> name of a branch -> tokens of its encoder.
See = Callable[[list[int]], dict[str, torch.Tensor]]


def questions(pairs: Pairs, family: str, held_out: bool = False) -> list[tuple[int, str, str, str]]:
    """(item, template, question, answer): one of the family for every clip that has one, templates in turn."""
    found = []
    for item in range(len(pairs)):
        names = language.templates(pairs[item], family)
        if names:
            # item // 2: a clip and its partner are asked the same.
            name = names[item // 2 % len(names)]
            found.append((item, name, *language.ask(pairs[item], name, item // 2, held_out)))
    return found


def generate(model: Vlab, sequences: Sequences, seen: dict[str, Tensor], prompts: list[str], longest: int) -> list[str]:
    """Greedy words about each clip: a mask is appended, predicted and replaced, until `<eos>`."""
    ids = sequences.tokenizer
    prompt = sequences.pad([[list(sequences.ids(text))] for text in prompts], ids.pad_token_id)
    text = torch.full((len(prompts), 1, 1), ids.bos_token_id)
    causal = torch.ones(len(prompts), 1, dtype=torch.bool)
    with torch.inference_mode():
        streams = model.streams(seen)
        for _ in range(longest):
            asked = torch.cat([text, torch.full_like(text[..., :1], ids.mask_token_id)], -1)
            scores = model.fusion.logits(model.fusion(asked, prompt, causal, model.pad, streams)[:, :, -1])
            text = torch.cat([text, scores.argmax(-1, keepdim=True)], -1)
            if (text == ids.eos_token_id).any(-1).all():
                break
    return [_words(sequences, row) for row in text[:, 0].tolist()]


def _words(sequences: Sequences, row: list[int]) -> str:
    tokenizer = sequences.tokenizer
    row = row[1 : row.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in row else row[1:]
    return " ".join(tokenizer.convert_ids_to_tokens(row))


def answers(model: Vlab, sequences: Sequences, see: See, asked: list[tuple[int, str, str, str]]) -> list[str]:
    """Generated answers. see: items -> tokens of the encoders."""
    said = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        said += generate(model, sequences, see([row[0] for row in part]), [row[2] for row in part], ANSWER_TOKENS)
    return said


def right(said: list[str], asked: list[tuple[int, str, str, str]]) -> list[float]:
    """1 where the answer is exactly right (top-1, both sides normalised alike)."""
    return [vqa.exact(answer, row[3]) for answer, row in zip(said, asked, strict=True)]


def right_for_partner(said: list[str], asked: list[tuple[int, str, str, str]]) -> list[float]:
    """1 where the answer to the reversed clip is the one that was right for the clip itself.

    The partner is the clip with its frames reversed and is asked the same question, so no other run is needed.
    """
    place = {row[0]: number for number, row in enumerate(asked)}
    return [vqa.exact(said[place[row[0] ^ 1]], row[3]) for row in asked]


def describe(model: Vlab, sequences: Sequences, see: See, items: list[int]) -> list[str]:
    """Generated captions."""
    said = []
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        prompts = [language.PROMPTS["caption"]] * len(part)
        said += generate(model, sequences, see(part), prompts, CAPTION_TOKENS)
    return said


def caption_scores(said: list[str], pairs: Pairs, items: list[int]) -> dict[str, list[float]]:
    """CIDEr and whether the motion's word is in the caption, per item, against all training wordings."""
    references = [language.captions(pairs[item]) for item in items]
    cider = caption_metrics.score(said, references)["cider"]
    named = [float(pairs[item].answer in text.split()) for item, text in zip(items, said, strict=True)]
    return {"cider": cider, "caption_motion": named}


def galleries(pairs: Pairs) -> list[list[int]]:
    """Numbers of clips, in galleries whose clips differ in thing and ground, so that a still picture tells them apart.

    The first gallery has every thing and ground once, the second those that come twice, and so on; galleries of less
    than half the first one's size, where searching is easier, are left out.
    """
    rounds: list[dict[tuple[str, str], int]] = []
    for number, clip in enumerate(pairs.clips):
        key = clip.first, clip.background
        gallery = next((gallery for gallery in rounds if key not in gallery), None)
        if gallery is None:
            rounds.append(gallery := {})
        gallery[key] = number
    return [list(gallery.values()) for gallery in rounds if 2 * len(gallery) >= len(rounds[0])]


def queries(pairs: Pairs) -> list[list[int]]:
    """Items that are searched for, gallery by gallery: all its clips, then all their partners."""
    return [[2 * number + side for number in gallery] for gallery in galleries(pairs) for side in (0, 1)]


def recalls(model: Vlab, sequences: Sequences, see: See, pairs: Pairs) -> dict[str, list[float]]:
    """Text-to-video R@1 for every item of `queries`, among two sets.

    `static`: items that differ in what is seen. `reversal`: each with its reversed partner, so that a model blind to
    order is at one half at most: both have equal scores, and ties count as chance.
    """
    found: dict[str, list[float]] = {"reversal_r1": [], "static_r1": []}
    for items in queries(pairs):
        texts = [language.captions(pairs[item], held_out=True)[0] for item in items]
        encoded = encode_texts(sequences.tokenizer, texts, LENGTH)
        with torch.inference_mode():
            seen = see([*items, *(item ^ 1 for item in items)])
            scores = model.similarity(seen, encoded["input_ids"], encoded["attention_mask"]).double().numpy().round(6)
        relevant = torch.eye(len(items), 2 * len(items), dtype=torch.bool).numpy()
        found["reversal_r1"] += retrieval.recall_at(scores, 1, relevant).tolist()
        found["static_r1"] += retrieval.recall_at(scores[:, : len(items)], 1).tolist()
    return found
