"""What the experiments with SmolLM2 share: the model, read once, and rules by which it continues text.

A rule decides; surprise is measured under the model itself, whatever the rule.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmlib.models.lm import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor
    from transformers import PreTrainedModel

PLAUSIBLE = 0.1  # of the likeliest token's chance: what contrastive decoding may choose from


@dataclass(frozen=True)
class Rule:
    """How a token is drawn: temperature 0 is greedy; `k` keeps the likeliest k, `p` the smallest set of mass p.

    `penalty` makes tokens that stood before less likely (Keskar et al. 2019); `amateur` subtracts, among plausible
    tokens, what the model thinks when it sees so many last tokens only (contrastive decoding, Li et al. 2023, whose
    amateur is a smaller model).
    """

    temperature: float = 1.0
    k: int = 0
    p: float = 1.0
    penalty: float = 1.0
    amateur: int = 0


@functools.lru_cache(maxsize=1)
def opened(root: Path) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer, read once per process."""
    return open_checkpoint(root / "results/lm/checkpoint")


def truncated(logits: Tensor, rule: Rule) -> Tensor:
    """Probabilities (R, V) after temperature, top-k and top-p, in this order."""
    import torch

    logits = logits / (rule.temperature or 1.0)
    if rule.k:
        logits = logits.masked_fill(logits < logits.topk(rule.k, -1).values[:, -1:], -torch.inf)
    chances = logits.softmax(-1)
    if rule.p < 1:
        ordered, index = chances.sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= rule.p  # mass before this token already reaches p
        chances = chances.masked_fill(torch.zeros_like(beyond).scatter(-1, index, beyond), 0.0)
    return chances / chances.sum(-1, keepdim=True)


def adjusted(model: PreTrainedModel, logits: Tensor, ids: Tensor, rule: Rule) -> Tensor:
    """Logits (R, V) after penalty and contrast, given all tokens so far, ids (R, T)."""
    import math

    import torch

    if rule.penalty != 1:
        seen = logits.gather(1, ids)
        logits = logits.scatter(1, ids, torch.where(seen < 0, seen * rule.penalty, seen / rule.penalty))
    if rule.amateur:
        weak = model(ids[:, -rule.amateur :], logits_to_keep=1).logits[:, -1]
        plausible = logits >= logits.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
        logits = (logits.log_softmax(-1) - weak.log_softmax(-1)).masked_fill(~plausible, -torch.inf)
    return logits


def pick(logits: Tensor, rule: Rule, draw: Generator) -> Tensor:
    """(R, 1) next tokens."""
    import torch

    if not rule.temperature:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(truncated(logits, rule), 1, generator=draw)


def continue_text(
    model: PreTrainedModel, ids: Tensor, count: int, rule: Rule, seed: int, draws: int = 1
) -> tuple[Tensor, Tensor]:
    """(R·draws, count) drawn tokens and their surprise in nats under the model itself, whatever the rule.

    A row of ids (R, T) is read once, whatever the number of its draws, which stand side by side in the result.
    """
    import torch

    draw, nats, length = torch.Generator().manual_seed(seed), [], ids.shape[1]
    with torch.inference_mode():
        out = model(ids, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        cache.batch_repeat_interleave(draws)
        logits, ids = (tensor.repeat_interleave(draws, 0) for tensor in (out.logits[:, -1], ids))
        for step in range(count):
            token = pick(adjusted(model, logits, ids, rule), rule, draw)
            ids = torch.cat([ids, token], 1)
            nats.append(torch.logsumexp(logits, -1, keepdim=True) - logits.gather(-1, token))
            if step < count - 1:
                logits = model(token, past_key_values=cache, use_cache=True).logits[:, -1]
    return ids[:, length:], torch.cat(nats, 1)


def surprise(model: PreTrainedModel, ids: Tensor, count: int) -> Tensor:
    """(R, count) nats of the last `count` tokens."""
    import torch

    with torch.inference_mode():
        logits = model(ids, logits_to_keep=count + 1).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, -count:], reduction="none")
