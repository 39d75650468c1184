"""Which answer does a language model give? Ranking and exact match from one packed forward pass per batch.

All items of a task share a prefix (instruction and demonstrations), so its keys and values are computed once.
Each row then holds one query and all its candidate answers side by side; a mask lets a candidate see the
prefix, the query and itself, so that every candidate gets exactly the log-probability it would get alone
(tests/metrics/test_continuations.py compares with one plain forward pass per candidate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 40


@dataclass(frozen=True)
class Question:
    """A query with candidate answers; `candidates[gold]` is right. Texts continue the prefix verbatim."""

    query: str
    candidates: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class _Row:
    """One query and its candidates as the model reads them.

    The last token of a wrong candidate is predicted but never read, so it is left out; gold's last token is read,
    because what follows it decides whether the word ends there.
    """

    ids: list[int]
    query_length: int
    tokens: list[list[int]]  # of each candidate
    starts: list[int]  # where each candidate begins in ids

    def predictors(self, number: int) -> list[int]:
        """Rows of `_packed_logits` that predict candidate `number`: the query's last, then its own but the last."""
        start = self.starts[number] - self.query_length + 1
        return [0, *range(start, start + len(self.tokens[number]) - 1)]


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

    Raises:
        UserError: prefix, query and a candidate do not fit into the model's context.
    """
    rows = [_pack(tokenizer, question) for question in questions]
    _refuse_overlong(model, len(_encode(tokenizer, prefix)), rows, questions)
    result: dict[str, list[float]] = {name: [0.0] * len(rows) for name in ("ranking", "exact", "logprob")}
    # Rows of similar length share a batch: padding would otherwise cost as much as the answers.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        for i, logits in zip(batch, _packed_logits(model, tokenizer, prefix, [rows[i] for i in batch]), strict=True):
            row, gold = rows[i], questions[i].gold
            total = logits.logsumexp(-1)  # cheaper than log_softmax, which writes all of V again
            sums = [_logprob(logits, total, row, number) for number in range(len(row.tokens))]
            result["ranking"][i] = float(sums.index(max(sums)) == gold)
            result["exact"][i] = float(_is_greedy(logits, row, gold, tokenizer))
            result["logprob"][i] = sums[gold]
    return result


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _refuse_overlong(model: PreTrainedModel, prefix: int, rows: list[_Row], questions: list[Question]) -> None:
    """Positions beyond the context give numbers without an error, so they are refused here, as in `lm.generate`."""
    limit = model.config.max_position_embeddings
    for row, question in zip(rows, questions, strict=True):
        needed = prefix + row.query_length + max(map(len, row.tokens))
        if needed > limit:
            culprit = f"prompt and answers of `{question.query[:40]}…` need {needed} tokens, the context holds {limit}"
            raise UserError(culprit, "shorten it or show fewer demonstrations")


def _pack(tokenizer: PreTrainedTokenizerBase, question: Question) -> _Row:
    ids = _encode(tokenizer, question.query)
    length, tokens, starts = len(ids), [], []
    for number, candidate in enumerate(question.candidates):
        tokens.append(_encode(tokenizer, candidate))
        starts.append(len(ids))
        ids = ids + (tokens[-1] if number == question.gold else tokens[-1][:-1])
    return _Row(ids, length, tokens, starts)


def _layout(row: _Row, prefix: int, width: int) -> tuple[Tensor, Tensor]:
    """Positions (width,) and visibility (width, prefix + width) of one padded row."""
    import torch

    positions = torch.arange(width)
    own = torch.zeros(width, width, dtype=torch.bool)
    own.fill_diagonal_(True)  # padding sees itself: a row that sees nothing would be NaN
    own[: row.query_length, : row.query_length] = torch.ones(row.query_length, row.query_length).tril().bool()
    for start, end in zip(row.starts, [*row.starts[1:], len(row.ids)], strict=True):
        own[start:end, : row.query_length] = True
        own[start:end, start:end] = torch.ones(end - start, end - start).tril().bool()
        positions[start:end] = row.query_length + torch.arange(end - start)
    return positions + prefix, torch.cat([torch.ones(width, prefix, dtype=torch.bool), own], dim=1)


def _packed_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prefix: str, rows: list[_Row]
) -> tuple[Tensor, ...]:
    """Logits (tokens from the query's last on, V) of every row."""
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
        # Only positions that are read pay for the output layer, which costs as much as a quarter of all blocks.
        read = [slice(row.query_length - 1, len(row.ids)) for row in rows]
        logits = model.lm_head(torch.cat([state[part] for state, part in zip(states, read, strict=True)]))
    return logits.split([part.stop - part.start for part in read])


def _logprob(logits: Tensor, total: Tensor, row: _Row, number: int) -> float:
    at = row.predictors(number)
    return (logits[at, row.tokens[number]] - total[at]).sum().item()


def _is_greedy(logits: Tensor, row: _Row, gold: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    if logits[row.predictors(gold)].argmax(-1).tolist() != row.tokens[gold]:
        return False
    last = row.starts[gold] - row.query_length + len(row.tokens[gold])
    return not tokenizer.decode([logits[last].argmax().item()])[:1].isalnum()
