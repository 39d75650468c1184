"""Decoding rules on a real model (section 4.2.4): how much a continuation repeats, how much it surprises."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import text
from mmlib.survey_llm.smol import Rule, continue_text, surprise

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

PROMPT = 32  # tokens of a document that are given
GRAM = 4
RULES = {
    "greedy": Rule(0.0), "temperature 0.7": Rule(0.7), "temperature 1": Rule(1.0), "temperature 1.3": Rule(1.3),
    "top-k 40": Rule(k=40), "top-p 0.5": Rule(p=0.5), "top-p 0.9": Rule(p=0.9),
    "penalty 1.2": Rule(0.0, penalty=1.2), "contrastive": Rule(0.0, amateur=4),
}  # fmt: skip
HUMAN, BEAMS = "text itself", {f"beam {n}": n for n in (2, 4, 8)}
FIXED = (HUMAN, *BEAMS, *(name for name, rule in RULES.items() if not rule.temperature))  # nothing is drawn


def prompt_windows(tokenizer: Any, root: Path, settings: dict[str, Any]) -> Tensor:
    """(prompts, PROMPT + new) tokens: beginnings of documents."""
    length = PROMPT + settings["new"]
    return text.windows(tokenizer, text.documents(root, "test"), settings["prompts"], length, seed=0)


def repeated(tokens: list[int]) -> float:
    """Share of 4-grams that stood in the same continuation before."""
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams)


def distinct(tokens: list[int]) -> float:
    """Different bigrams per bigram (Li et al. 2016)."""
    grams = list(itertools.pairwise(tokens))
    return len(set(grams)) / len(grams)


def decoding(model: PreTrainedModel, windows: Tensor, arm: str, repeats: int) -> list[dict[str, list[float]]]:
    """Per repeat and prompt (first PROMPT tokens of each window): repetition, distinct bigrams, mean surprise.

    All repeats of a prompt are drawn side by side: a step costs little more for more rows.
    """
    ids, count = windows[:, :PROMPT], windows.shape[1] - PROMPT
    if arm == HUMAN:
        tokens, nats = windows[:, PROMPT:], surprise(model, windows, count)
    elif arm in BEAMS:
        out = model.generate(ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=count, min_new_tokens=count,
                             num_beams=BEAMS[arm], do_sample=False, pad_token_id=0)  # fmt: skip
        tokens, nats = out[:, PROMPT:], surprise(model, out, count)
    else:
        tokens, nats = continue_text(model, ids, count, RULES[arm], seed=0, draws=repeats)
    rows = list(zip(tokens.tolist(), nats.mean(1).tolist(), strict=True))
    each = len(rows) // len(windows)  # repeats, of what is drawn
    parts = [rows[i::each] for i in range(each)]
    return [
        {"repeated": [round(repeated(t), 6) for t, _ in part], "distinct": [round(distinct(t), 6) for t, _ in part],
         "surprise": [round(v, 5) for _, v in part]}
        for part in parts
    ]  # fmt: skip


def speculate(target: np.ndarray, draft: np.ndarray, rng: np.random.Generator) -> tuple[int, bool]:
    """One token of speculative sampling (Leviathan et al. 2023, algorithm 1): (token, whether the draft was kept)."""
    token = int(rng.choice(len(draft), p=draft))
    if rng.random() < min(1.0, target[token] / draft[token]):
        return token, True
    rest = np.maximum(target - draft, 0)
    return int(rng.choice(len(rest), p=rest / rest.sum())), False
