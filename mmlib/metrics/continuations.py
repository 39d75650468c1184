"""Which answer does a language model give? Ranking and exact match from one packed forward pass per batch.

All items of a task share a prefix (instruction and demonstrations), so its keys and values are computed once.
Each row then holds one query and all its candidate answers side by side; a mask lets a candidate see the
prefix, the query and itself, so that every candidate gets exactly the log-probability it would get alone
(tests/metrics/test_continuations.py compares with one plain forward pass per candidate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Question:
    """A query with candidate answers; `candidates[gold]` is right. Texts continue the prefix verbatim."""

    query: str
    candidates: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class _Row:
    ids: list[int]
    query_length: int
    spans: list[tuple[int, int]]  # [start, end) of each candidate in ids


def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prefix: str, questions: list[Question]
) -> dict[str, list[float]]:
    """Per question: is the gold candidate ranked first, is it the greedy answer, what is its log-probability.

    Returns:
        `ranking`: 1.0 if gold has the highest summed log p(candidate | prefix, query), as in
            lm-evaluation-harness `acc`; chance is 1 / number of candidates.
        `exact`: 1.0 if greedy decoding yields the gold tokens and then ends the word (whatever follows does
            not start with a letter or digit). Teacher forcing decides this without generating: greedy decoding
            gives the gold tokens if and only if each is the arg max given those before it. Chance is about 0.
        `logprob`: summed log p(gold | prefix, query) in nats.
    """
    rows = [_pack(tokenizer, question) for question in questions]
    logits, rows_at = _packed_logits(model, tokenizer, prefix, rows)
    result: dict[str, list[float]] = {"ranking": [], "exact": [], "logprob": []}
    for number, (row, question) in enumerate(zip(rows, questions, strict=True)):
        own = logits[rows_at[number]]  # (Q, V) of this row
        total = own.logsumexp(-1)  # cheaper than log_softmax, which writes all of V again
        sums = [_span_logprob(own, total, row, span) for span in row.spans]
        result["ranking"].append(float(sums.index(max(sums)) == question.gold))
        result["exact"].append(float(_is_greedy(own, row, row.spans[question.gold], tokenizer)))
        result["logprob"].append(sums[question.gold])
    return result


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _pack(tokenizer: PreTrainedTokenizerBase, question: Question) -> _Row:
    ids = _encode(tokenizer, question.query)
    length, spans = len(ids), []
    for candidate in question.candidates:
        tokens = _encode(tokenizer, candidate)
        spans.append((len(ids), len(ids) + len(tokens)))
        ids = ids + tokens
    return _Row(ids, length, spans)


def _layout(row: _Row, prefix: int, width: int) -> tuple[Tensor, Tensor]:
    """Positions (width,) and visibility (width, prefix + width) of one padded row."""
    import torch

    positions = torch.arange(width)
    own = torch.zeros(width, width, dtype=torch.bool)
    own.fill_diagonal_(True)  # padding sees itself: a row that sees nothing would be NaN
    own[: row.query_length, : row.query_length] = torch.ones(row.query_length, row.query_length).tril().bool()
    for start, end in row.spans:
        own[start:end, : row.query_length] = True
        own[start:end, start:end] = torch.ones(end - start, end - start).tril().bool()
        positions[start:end] = row.query_length + torch.arange(end - start)
    return positions + prefix, torch.cat([torch.ones(width, prefix, dtype=torch.bool), own], dim=1)


def _packed_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prefix: str, rows: list[_Row]
) -> tuple[Tensor, list[slice]]:
    """Logits of all real positions, rows one after the other, and the slice that belongs to each row."""
    import torch

    width = max(len(row.ids) for row in rows)
    prefix_ids = _encode(tokenizer, prefix)
    layouts = [_layout(row, len(prefix_ids), width) for row in rows]
    ids = torch.tensor([row.ids + [tokenizer.pad_token_id or 0] * (width - len(row.ids)) for row in rows])
    positions = torch.stack([position for position, _ in layouts])
    visible = torch.stack([mask for _, mask in layouts])[:, None]  # (N, 1, Q, P + Q)
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    device = model.device
    with torch.inference_mode():
        cache = model.model(torch.tensor([prefix_ids], device=device), use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(rows))
        states = model.model(
            ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        # Only real positions pay for the output layer, which costs as much as a quarter of all blocks.
        logits = model.lm_head(torch.cat([state[: len(row.ids)] for state, row in zip(states, rows, strict=True)]))
    ends = torch.tensor([len(row.ids) for row in rows]).cumsum(0).tolist()
    return logits, [slice(end - len(row.ids), end) for end, row in zip(ends, rows, strict=True)]


def _predictors(row: _Row, span: tuple[int, int]) -> list[int]:
    """Positions whose output predicts the tokens of a candidate: the query's last, then its own but the last."""
    return [row.query_length - 1, *range(span[0], span[1] - 1)]


def _span_logprob(logits: Tensor, total: Tensor, row: _Row, span: tuple[int, int]) -> float:
    at = _predictors(row, span)
    return (logits[at, row.ids[span[0] : span[1]]] - total[at]).sum().item()


def _is_greedy(logits: Tensor, row: _Row, span: tuple[int, int], tokenizer: PreTrainedTokenizerBase) -> bool:
    tokens = row.ids[span[0] : span[1]]
    if logits[_predictors(row, span)].argmax(-1).tolist() != tokens:
        return False
    following = tokenizer.decode([logits[span[1] - 1].argmax().item()])
    return not following[:1].isalnum()
