"""Batched greedy answers equal those of `transformers`, prompt by prompt."""

from __future__ import annotations

import pytest

from mmlib.errors import UserError
from mmlib.models.lm import complete_greedily
from mmlib.quantization.speaking import answer_greedily

TEMPLATE = "Give the capital. {% for m in messages %}{{ m.content }}{% endfor %} ->"
PROMPTS = ["Japan", "Peru and France and Japan", "France", "Give the capital of each country", "P"]


@pytest.fixture
def speaker(tiny_llama, tokenizer):
    """The random model of this folder, with the vocabulary of the tokenizer that `lm` tests use."""
    from transformers import LlamaForCausalLM

    tokenizer.chat_template = TEMPLATE
    config = tiny_llama.config
    config.vocab_size, config.initializer_range = len(tokenizer), 0.4  # larger weights: answers differ by prompt
    return LlamaForCausalLM(config).eval()


def test_answers_equal_generation_one_by_one(speaker, tokenizer):
    alone = complete_greedily(speaker, tokenizer, PROMPTS, 12)
    assert answer_greedily(speaker, tokenizer, PROMPTS, 12) == alone
    assert len(set(alone)) > 2, "all answers alike: the test would see no mix-up"
    assert answer_greedily(speaker, tokenizer, PROMPTS[:1], 12) == alone[:1]


def test_rows_that_end_early_leave_the_others_as_they_are(speaker, tokenizer):
    free = complete_greedily(speaker, tokenizer, PROMPTS, 12)
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in free]
    ends = next(row[3] for row in ids if sum(row[3] in other for other in ids) < len(ids))
    speaker.generation_config.eos_token_id = [ends]
    expected = complete_greedily(speaker, tokenizer, PROMPTS, 12)
    assert expected != free, "nothing ended early"
    assert answer_greedily(speaker, tokenizer, PROMPTS, 12) == expected


def test_a_prompt_beyond_the_context_is_refused(speaker, tokenizer):
    speaker.config.max_position_embeddings = 40
    with pytest.raises(UserError, match="and its answer need"):
        answer_greedily(speaker, tokenizer, ["Japan -> " * 20], 12)
