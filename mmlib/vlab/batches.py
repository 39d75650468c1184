"""Masked sequences: what MLM, unified language modelling and questions look like to the multimodal encoder.

Per clip: one caption (masked bidirectionally for every other pair, causally for the rest) and some questions, whose
words stand in the prompt and whose answer is the text.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from mmlib.models.clip import encode_texts, epochs
from mmlib.vlab import language
from mmlib.vlab.clip_base import LENGTH
from mmlib.vlab.data import Pairs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
SHARES = {"mlm": 0.15, "ulm": 0.6}  # of masked words (VALOR)


class Sequences:
    """Texts -> padded, masked tensors.

    Args:
        answer_share: of an answer's words that are masked. The group masks 99 %; answers of two words are then
            generated from a first word that training hardly ever showed, so less is masked here.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, answer_share: float) -> None:
        self.tokenizer, self.shares = tokenizer, {**SHARES, "qa": answer_share}
        self.plain = range(len(language.SPECIAL), len(tokenizer))
        self.ids = cache(self._ids)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(f"{language.BOS} {text} {language.EOS}", add_special_tokens=False).input_ids)

    def mask(self, text: str, task: str, draw: random.Random) -> tuple[list[int], list[int]]:
        """(ids, labels): of the chosen words 80 % masked, 10 % replaced, 10 % kept; `<bos>` never, one at least."""
        ids = list(self.ids(text))
        places = [i for i in range(1, len(ids)) if draw.random() < self.shares[task]]
        places = places or [draw.randrange(1, len(ids))]
        labels = [IGNORED] * len(ids)
        for i in places:
            labels[i], fate = ids[i], draw.random()
            if fate < 0.9:
                ids[i] = self.tokenizer.mask_token_id if fate < 0.8 else draw.choice(self.plain)
        return ids, labels

    def pad(self, rows: list[list[list[int]]], value: int) -> Tensor:
        """Lists (B, Q, any) -> int64 (B, Q, longest)."""
        longest = max(len(ids) for row in rows for ids in row)
        return torch.tensor([[[*ids, *[value] * (longest - len(ids))] for ids in row] for row in rows])


def training_collate(
    sequences: Sequences,
    pairs: Pairs,
    see: Callable[[list[int]], dict[str, Tensor]],
    settings: dict[str, Any],
    seed: int,
) -> Callable[[list[int]], dict[str, Any]]:
    """Collator for `fit`: a clip and its partner always come together, so every batch has its hard negatives.

    Args:
        see: items of `pairs` -> what the model sees of them (`lower`, or `video` and `image`).
        settings: `steps`, `batch` (clips with partners: even), `questions` per clip, `ratios` of the losses.
    """
    order = epochs(len(pairs.clips), settings["steps"] * settings["batch"] // 2, seed)
    ratios, cache_captions = settings["ratios"], {}

    def collate(numbers: list[int]) -> dict[str, Any]:
        items = [2 * order[number // 2] + number % 2 for number in numbers]
        draw = random.Random(f"batch/{seed}/{numbers[0]}")
        tasks = [["mlm" if number // 2 % 2 else "ulm", *["qa"] * settings["questions"]] for number in numbers]
        rows = [_rows(sequences, pairs[item], row, draw) for item, row in zip(items, tasks, strict=True)]
        text, labels, prompt = ([[part[k] for part in row] for row in rows] for k in range(3))
        for item in items:
            cache_captions.setdefault(item, language.captions(pairs[item]))
        said = encode_texts(sequences.tokenizer, [draw.choice(cache_captions[item]) for item in items], LENGTH)
        return {
            "text": sequences.pad(text, sequences.tokenizer.pad_token_id), "labels": sequences.pad(labels, IGNORED),
            "prompt": sequences.pad(prompt, sequences.tokenizer.pad_token_id),
            "causal": torch.tensor([[task != "mlm" for task in row] for row in tasks]),
            "weight": _weights(tasks, ratios), "caption": said["input_ids"],
            "caption_mask": said["attention_mask"], "vtc": ratios["vtc"], **see(items),
        }  # fmt: skip

    return collate


def _rows(sequences: Sequences, clip: Any, tasks: list[str], draw: random.Random) -> list[tuple]:
    caption = draw.choice(language.captions(clip))
    prompt = language.PROMPTS["masked" if tasks[0] == "mlm" else "caption"]
    rows = [(*sequences.mask(caption, tasks[0], draw), list(sequences.ids(prompt)))]
    for _, question, answer in language.draw_questions(clip, draw, len(tasks) - 1):
        rows.append((*sequences.mask(answer, "qa", draw), list(sequences.ids(question))))
    return rows


def _weights(tasks: list[list[str]], ratios: dict[str, float]) -> Tensor:
    """Every task's sequences share its ratio equally."""
    flat = [task for row in tasks for task in row]
    each = {task: ratios[task] / flat.count(task) for task in set(flat)}
    return torch.tensor([[each[task] for task in row] for row in tasks])
