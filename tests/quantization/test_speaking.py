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


def test_a_cache_with_room_holds_what_a_plain_one_holds(monkeypatch):
    """Through growth beyond its room, repetition and rows that leave; a write to the wrong place is found out."""
    import torch
    from transformers.cache_utils import DynamicLayer

    from mmlib.quantization import roomy_cache

    monkeypatch.setattr(roomy_cache, "ROOM", 2)
    draw = torch.Generator().manual_seed(0)

    def steps(layer):
        draw.manual_seed(0)
        new = lambda rows, tokens: [torch.randn(rows, 2, tokens, 4, generator=draw) for _ in range(2)]  # noqa: E731
        layer.update(*new(1, 3))
        layer.batch_repeat_interleave(4)
        for tokens in (2, 1, 1, 1):
            layer.update(*new(4, tokens))
        layer.batch_select_indices(torch.tensor([0, 3]))
        for _ in range(4):
            keys, values = layer.update(*new(2, 1))
        return keys, values

    plain, roomy = steps(DynamicLayer()), steps(roomy_cache.RoomyLayer())
    assert all(map(torch.equal, plain, roomy)) and roomy[0].shape == (2, 2, 12, 4)
    monkeypatch.setattr(roomy_cache, "_moved", lambda old, new, capacity: new.new_zeros(*new.shape[:2], capacity, 4))
    assert not torch.equal(steps(roomy_cache.RoomyLayer())[0], plain[0])


@pytest.mark.parametrize("dead", [0.0, 0.5, 2.0])
def test_when_ended_rows_leave_changes_no_answer(speaker, tokenizer, monkeypatch, dead):
    from mmlib.quantization import speaking

    free = complete_greedily(speaker, tokenizer, PROMPTS, 12)
    speaker.generation_config.eos_token_id = [tokenizer(free[0], add_special_tokens=False).input_ids[2]]
    expected = complete_greedily(speaker, tokenizer, PROMPTS, 12)
    monkeypatch.setattr(speaking, "DEAD", dead)
    assert answer_greedily(speaker, tokenizer, PROMPTS, 12) == expected
