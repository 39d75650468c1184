"""Masked sequences: what MLM, unified language modelling and questions look like to the multimodal encoder.

Per clip: one caption (masked bidirectionally for every other pair, causally for the rest, if both losses are asked for)
and some questions, whose words stand in the prompt and whose answer is the text.
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
from mmlib.world.clips import Clip

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


def clip_texts(clip: Clip, draw: random.Random, questions: int) -> tuple[str, list[tuple[str, str]]]:
    """A caption, and questions with answers, of a clip."""
    asked = [(question, answer) for _, question, answer in language.draw_questions(clip, draw, questions)]
    return draw.choice(language.captions(clip)), asked


def still_texts(clip: Clip, frame: int, draw: random.Random, questions: int) -> tuple[str, list[tuple[str, str]]]:
    """The same of one frame: what is seen in it, and questions that one frame answers."""
    names = language.templates(clip, "static")
    drawn = [draw.choice(names) for _ in range(questions)]
    asked = [language.ask(clip, name, draw.randrange(len(language.WORDINGS[False]))) for name in drawn]
    return draw.choice(language.still_captions(clip, frame)), asked


def collate_texts(
    sequences: Sequences, texts: list[tuple[str, list[tuple[str, str]]]], first: int, ratios: dict[str, float],
    draw: random.Random,
) -> dict[str, Any]:  # fmt: skip
    """Masked sequences of a batch, and CLIP's captions.

    Args:
        texts: caption and questions of each item. first: number of the first item; pairs of items take turns between
            those of ULM and MLM that `ratios` asks for; without both there is no caption to fill.
    """
    turns = [task for task in ("ulm", "mlm") if ratios[task]]
    tasks = [[turns[(first + i) // 2 % len(turns)]] if turns else [] for i in range(len(texts))]
    rows = []
    for (caption, asked), each in zip(texts, tasks, strict=True):
        row = [_captioned(sequences, caption, task, draw) for task in each]
        rows.append(row + [(*sequences.mask(said, "qa", draw), list(sequences.ids(about))) for about, said in asked])
        each += ["qa"] * len(asked)
    text, labels, prompt = ([[part[k] for part in row] for row in rows] for k in range(3))
    said = encode_texts(sequences.tokenizer, [caption for caption, _ in texts], LENGTH)
    return {
        "text": sequences.pad(text, sequences.tokenizer.pad_token_id), "labels": sequences.pad(labels, IGNORED),
        "prompt": sequences.pad(prompt, sequences.tokenizer.pad_token_id),
        "causal": torch.tensor([[task != "mlm" for task in row] for row in tasks]),
        "weight": _weights(tasks, ratios), "caption": said["input_ids"], "caption_mask": said["attention_mask"],
        **{name: ratios[name] for name in ("vtc", "pair", "match")},
    }  # fmt: skip


def _captioned(sequences: Sequences, caption: str, task: str, draw: random.Random) -> tuple[list[int], ...]:
    prompt = language.PROMPTS["masked" if task == "mlm" else "caption"]
    return (*sequences.mask(caption, task, draw), list(sequences.ids(prompt)))


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

    def collate(numbers: list[int]) -> dict[str, Any]:
        items = [2 * order[number // 2] + number % 2 for number in numbers]
        draw = random.Random(f"batch/{seed}/{numbers[0]}")
        texts = [clip_texts(pairs[item], draw, settings["questions"]) for item in items]
        return {**collate_texts(sequences, texts, numbers[0], settings["ratios"], draw), **see(items)}

    return collate


def still_collate(
    sequences: Sequences, pairs: Pairs, tokens: Tensor, settings: dict[str, Any], seed: int
) -> Callable[[list[int]], dict[str, Any]]:
    """Collator over single frames of clips.

    Args:
        tokens: of the plain image encoder, (clips, T, N + 1, D).
    """
    order = epochs(len(pairs.clips), settings["steps"] * settings["batch"], seed)

    def collate(numbers: list[int]) -> dict[str, Any]:
        draw = random.Random(f"stills/{seed}/{numbers[0]}")
        clips = [order[number] for number in numbers]
        frames = [draw.randrange(tokens.shape[1]) for _ in numbers]
        drawn = zip(clips, frames, strict=True)
        texts = [still_texts(pairs.clips[clip], frame, draw, settings["questions"]) for clip, frame in drawn]
        batch = collate_texts(sequences, texts, numbers[0], settings["ratios"], draw)
        return {**batch, "video": tokens[clips, frames][:, None]}

    return collate


def _weights(tasks: list[list[str]], ratios: dict[str, float]) -> Tensor:
    """Every task's sequences share its ratio equally."""
    flat = [task for row in tasks for task in row]
    each = {task: ratios[task] / flat.count(task) for task in set(flat)}
    return torch.tensor([[each[task] for task in row] for row in tasks])
