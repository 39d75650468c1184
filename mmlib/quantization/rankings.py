"""Which candidate does a language model rank first, for many prompts of a few questions each?

`metrics.continuations` reads a prefix once for many questions. Here prefixes differ and each is asked little, so that
a pass a prefix would be too short for the processor: a row holds one prefix and all its questions side by side, and
rows share a batch. What a token sees is what it would see alone (tests compare with `continuations.score`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.metrics.continuations import Question

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 16  # prompts: 1500 tokens or so, from where on a larger matrix is multiplied no faster
SHARED, PADDING = -1, -2  # who reads a token: everyone after it, or nobody


@dataclass
class _Row:
    """A prefix and its questions; of every token: id, position, and the question and candidate that it belongs to."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    question: list[int] = field(default_factory=list)
    candidate: list[int] = field(default_factory=list)
    predicted: list[list[tuple[list[int], list[int]]]] = field(default_factory=list)  # see `_ask`

    def append(self, tokens: list[int], position: int, question: int, candidate: int) -> None:
        self.ids += tokens
        self.positions += range(position, position + len(tokens))
        self.question += [question] * len(tokens)
        self.candidate += [candidate] * len(tokens)

    def read(self) -> list[int]:
        """Where something is predicted, in order: only these positions pay for the output layer."""
        return sorted({at for question in self.predicted for places, _ in question for at in places})


def rankings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[tuple[str, list[Question]]]
) -> list[list[float]]:
    """Per prompt (prefix, questions) and question: 1.0 if the gold candidate has the highest log-probability.

    The same as `continuations.score(model, tokenizer, prefix, questions)["ranking"]` of each.

    Raises:
        UserError: a prefix, a query and a candidate do not fit into the model's context.
    """
    rows = [_row(tokenizer, prefix, questions) for prefix, questions in prompts]
    longest, limit = max(max(row.positions) + 2 for row in rows), model.config.max_position_embeddings
    if longest > limit:  # the last token of a candidate is predicted, never read
        culprit = f"a prompt and its answers need {longest} tokens, the context holds {limit}"
        raise UserError(culprit, "shorten it or show fewer demonstrations")
    result: list[list[float]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))  # alike lengths: little padding
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        for i, logp in zip(batch, _log_probabilities(model, [rows[i] for i in batch]), strict=True):
            result[i] = _gold_first(rows[i], logp, prompts[i][1])
    return result


def _row(tokenizer: PreTrainedTokenizerBase, prefix: str, questions: list[Question]) -> _Row:
    row, tokens = _Row(), tokenizer(prefix, add_special_tokens=False).input_ids
    row.append(tokens, 0, SHARED, SHARED)
    for number, question in enumerate(questions):
        _ask(row, tokenizer, question, number, len(tokens))
    return row


def _ask(row: _Row, tokenizer: PreTrainedTokenizerBase, question: Question, number: int, position: int) -> None:
    """Append a question; `predicted` gets, for each candidate, the places that predict its tokens, and these."""
    query = tokenizer(question.query, add_special_tokens=False).input_ids
    row.append(query, position, number, SHARED)
    last, found = len(row.ids) - 1, []
    for candidate in question.candidates:
        tokens, start = tokenizer(candidate, add_special_tokens=False).input_ids, len(row.ids)
        row.append(tokens[:-1], position + len(query), number, start)
        found.append(([last, *range(start, start + len(tokens) - 1)], tokens))
    row.predicted.append(found)


def _log_probabilities(model: PreTrainedModel, rows: list[_Row]) -> tuple[Tensor, ...]:
    """Log-probabilities (places of `read`, V) of every row."""
    import torch

    def padded(name: str, fill: int) -> Tensor:
        width = max(len(row.ids) for row in rows)
        return torch.tensor([(own := getattr(row, name)) + [fill] * (width - len(own)) for row in rows])

    question, candidate = padded("question", PADDING), padded("candidate", PADDING)
    visible = _shared_or_own(question) & _shared_or_own(candidate)
    visible = visible.tril()[:, None]  # (N, 1, L, L)
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    with torch.inference_mode():
        states = model.model(
            padded("ids", 0), attention_mask=mask, position_ids=padded("positions", 0), use_cache=False
        ).last_hidden_state
        read = [row.read() for row in rows]
        logits = model.lm_head(torch.cat([state[places] for state, places in zip(states, read, strict=True)]))
        return logits.log_softmax(-1).split([len(places) for places in read])


def _shared_or_own(group: Tensor) -> Tensor:
    """(N, L) -> (N, reading, read): is the token read shared, or of the group of the one that reads?"""
    read = group[:, None, :]
    return (read == SHARED) | (read == group[:, :, None])


def _gold_first(row: _Row, logp: Tensor, questions: list[Question]) -> list[float]:
    slot = {place: number for number, place in enumerate(row.read())}
    result = []
    for question, found in zip(questions, row.predicted, strict=True):
        sums = [logp[[slot[place] for place in places], tokens].sum().item() for places, tokens in found]
        result.append(float(sums.index(max(sums)) == question.gold))
    return result
