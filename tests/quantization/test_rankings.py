"""Many prompts in one batch: the same ranks as prompt by prompt, and the same log-probabilities."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.metrics import continuations
from mmlib.metrics.continuations import Question
from mmlib.quantization import rankings as m

PROMPTS = [
    (
        f"Sort the words.\n{shown}\n",
        [
            Question("France ->", (" Paris", " Tokyo", " Lima"), 0),
            Question("A long query ->", (" New Delhi and more", " Lima", " x"), gold),
        ],
    )
    for gold, shown in enumerate(("Japan -> Tokyo", "Peru -> Lima\nJapan -> Paris", "x -> y"))
]


@pytest.fixture
def speaker(tiny_llama, tokenizer):
    """The random model of this folder with the vocabulary of the tests' tokenizer."""
    from transformers import LlamaForCausalLM

    config = tiny_llama.config
    config.vocab_size, config.initializer_range = len(tokenizer), 0.4  # larger weights: ranks differ by prompt
    return LlamaForCausalLM(config).eval()


def one_by_one(model, tokenizer, name):
    return [continuations.score(model, tokenizer, *prompt)[name] for prompt in PROMPTS]


def gold_logprob(model, tokenizer):
    """Of every prompt and question, from the batch that holds all prompts."""
    rows = [m._row(tokenizer, *prompt) for prompt in PROMPTS]
    found = []
    for row, logp, (_, questions) in zip(rows, m._log_probabilities(model, rows), PROMPTS, strict=True):
        slot = {place: number for number, place in enumerate(row.read())}
        golds = [asked[question.gold] for asked, question in zip(row.predicted, questions, strict=True)]
        found.append([logp[[slot[place] for place in places], tokens].sum().item() for places, tokens in golds])
    return found


def test_ranks_and_logprobs_equal_those_of_each_prompt_alone(speaker, tokenizer):
    expected = one_by_one(speaker, tokenizer, "ranking")
    assert {rank for row in expected for rank in row} == {0.0, 1.0}, "all ranks alike: the test would see no mix-up"
    assert m.rankings(speaker, tokenizer, PROMPTS) == expected
    alone = torch.tensor(one_by_one(speaker, tokenizer, "logprob"))
    assert torch.allclose(torch.tensor(gold_logprob(speaker, tokenizer)), alone, rtol=1e-5, atol=1e-5)


def test_a_token_that_sees_the_other_questions_is_found_out(speaker, tokenizer, monkeypatch):
    """Planted fault: everything before a token is visible."""
    monkeypatch.setattr(m, "_shared_or_own", lambda group: torch.ones(*group.shape, group.shape[1], dtype=torch.bool))
    alone = torch.tensor(one_by_one(speaker, tokenizer, "logprob"))
    assert not torch.allclose(torch.tensor(gold_logprob(speaker, tokenizer)), alone, atol=1e-2)


def test_batches_do_not_change_ranks(speaker, tokenizer, monkeypatch):
    together = m.rankings(speaker, tokenizer, PROMPTS)
    monkeypatch.setattr(m, "BATCH", 1)
    assert m.rankings(speaker, tokenizer, PROMPTS) == together


def test_a_prompt_beyond_the_context_is_refused(speaker, tokenizer):
    speaker.config.max_position_embeddings = 20
    with pytest.raises(UserError, match="the context holds 20"):
        m.rankings(speaker, tokenizer, PROMPTS)
