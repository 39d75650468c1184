"""Greedy answers to many prompts at once, as cheap as one core allows.

What the prompts share (a chat template's system turn) is read once, and an answer that ends leaves the batch: answers
differ in length by a factor of ten, and `lm.generate` would go on computing padding for the short ones.
"""

from __future__ import annotations

from os.path import commonprefix
from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEAD = 0.1  # share of ended answers from which on they leave the batch: leaving copies the cache, half a token's time
PROMPTS = (  # for the samples in the reports
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "List three colours.",
)


def answer_greedily(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int
) -> list[str]:
    """One greedy answer per user prompt, in the model's chat template, of at most `new_tokens` tokens.

    Raises:
        UserError: a prompt and its answer do not fit into the model's context.
    """
    texts = [_in_template(tokenizer, prompt) for prompt in prompts]
    return [text.strip() for text in continue_greedily(model, tokenizer, texts, new_tokens, set())]


def continue_greedily(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], new_tokens: int, ends: set[int]
) -> list[str]:
    """What each text is continued with, until a token of `ends` or the model's own end, at most `new_tokens` tokens.

    Raises:
        UserError: a text and its continuation do not fit into the model's context.
    """
    encoded = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    longest = max(range(len(texts)), key=lambda i: len(encoded[i]))
    needed, limit = len(encoded[longest]) + new_tokens, model.config.max_position_embeddings
    if needed > limit:
        culprit = f"prompt `{texts[longest][-40:]}…` and its answer need {needed} tokens, the context holds {limit}"
        raise UserError(culprit, "shorten it or ask for fewer new tokens")
    tokens = continue_tokens(model, encoded, new_tokens, ends | _ends(model, tokenizer))
    return [tokenizer.decode(row, skip_special_tokens=True) for row in tokens]


def _in_template(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    message = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens after which `transformers` stops generating."""
    end = model.generation_config.eos_token_id
    end = tokenizer.eos_token_id if end is None else end
    return {*end} if isinstance(end, list) else {end}


def continue_tokens(model: PreTrainedModel, prompts: list[list[int]], count: int, ends: set[int]) -> list[list[int]]:
    """The tokens that each prompt is continued with, greedily, at most `count`; one of `ends` included.

    Args:
        prompts: token ids of each, of any lengths; `continue_greedily` is the same with text in and out.
        ends: tokens after which a prompt is not continued.
    """
    import torch

    from mmlib.quantization.roomy_cache import roomy_cache

    shared = min(len(commonprefix(prompts)), min(map(len, prompts)) - 1)  # noqa: RUF071 (lists, not paths)
    ids, mask, positions = _left_padded([row[shared:] for row in prompts], shared)
    said: list[list[int]] = [[] for _ in prompts]
    rows, cache = list(range(len(prompts))), roomy_cache()  # rows: of `said`, for each row of the batch
    with torch.inference_mode():
        if shared:
            model.model(torch.tensor([prompts[0][:shared]]), past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(prompts))
        while True:
            out = model.model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
            chosen = model.lm_head(out.last_hidden_state[:, -1]).argmax(-1)  # (N,)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if not _ended(said[row], count, ends):
                    said[row].append(token)
            stay = [i for i, row in enumerate(rows) if not _ended(said[row], count, ends)]
            if not stay:
                return said
            if len(rows) - len(stay) > DEAD * len(rows):
                cache.batch_select_indices(torch.tensor(stay))
                rows = [rows[i] for i in stay]
            else:
                stay = list(range(len(rows)))
            ids, positions = chosen[stay, None], positions[stay, -1:] + 1
            mask = torch.cat([mask[stay], mask.new_ones(len(stay), 1)], dim=1)


def _ended(said: list[int], count: int, ends: set[int]) -> bool:
    return len(said) == count or (bool(said) and said[-1] in ends)


def _left_padded(rows: list[list[int]], before: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids (N, W), visibility (N, before + W) and positions (N, W) of rows that `before` tokens precede."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    own = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    positions = before + (own.cumsum(1) - 1).clamp(min=0)
    return ids, torch.cat([own.new_ones(len(rows), before), own], dim=1), positions
