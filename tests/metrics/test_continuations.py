"""The packed scorer against the plain way: one forward pass per candidate, and real greedy decoding."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.metrics.continuations import Question, score

PREFIX = "Give the capital of each country.\nJapan -> Tokyo\nPeru -> Lima\n"
QUESTIONS = [
    Question("France ->", (" Paris", " Tokyo", " Lima"), 0),
    Question("Peru ->", (" New Delhi and more", " Lima"), 1),
    Question("A rather long query ->", (" x", " Paris", " Tokyo is long", " Lima"), 2),
]


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def plain_logprob(model, tokenizer, prefix, query, candidate):
    context = encode(tokenizer, prefix) + encode(tokenizer, query)
    answer = encode(tokenizer, candidate)
    with torch.inference_mode():
        logp = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
    return sum(logp[len(context) - 1 + i, token].item() for i, token in enumerate(answer))


def test_packed_logprob_and_ranking_equal_one_forward_per_candidate(tiny_llama, tokenizer):
    result = score(tiny_llama, tokenizer, PREFIX, QUESTIONS)
    for number, question in enumerate(QUESTIONS):
        sums = [plain_logprob(tiny_llama, tokenizer, PREFIX, question.query, c) for c in question.candidates]
        assert result["logprob"][number] == pytest.approx(sums[question.gold], abs=1e-4)
        assert result["ranking"][number] == float(max(range(len(sums)), key=sums.__getitem__) == question.gold)


def greedy(model, tokenizer, prefix, query, tokens):
    ids = torch.tensor([encode(tokenizer, prefix) + encode(tokenizer, query)])
    out = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return out[0, ids.shape[1] :].tolist()


def test_exact_match_equals_real_greedy_decoding(tiny_llama, tokenizer):
    """Gold answers are set to what the model really says, whole or cut inside a word, so both outcomes occur."""
    outcomes = set()
    for seed in range(12):
        torch.manual_seed(seed)
        for parameter in tiny_llama.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        said = greedy(tiny_llama, tokenizer, PREFIX, "France ->", 4)
        for length in (1, 2, 3):
            gold = tokenizer.decode(said[:length])
            if encode(tokenizer, gold) != said[:length]:
                continue  # a random model's tokens need not be the canonical encoding of their text
            ends = not tokenizer.decode(said[length : length + 1])[:1].isalnum()
            question = Question("France ->", (gold, " Lima"), 0)
            assert score(tiny_llama, tokenizer, PREFIX, [question])["exact"] == [float(ends)]
            outcomes.add(ends)
    assert outcomes == {True, False}


def test_batch_composition_does_not_change_a_score(tiny_llama, tokenizer):
    together = score(tiny_llama, tokenizer, PREFIX, QUESTIONS)["logprob"]
    alone = [score(tiny_llama, tokenizer, PREFIX, [q])["logprob"][0] for q in QUESTIONS]
    assert together == pytest.approx(alone, abs=1e-4)


def test_candidates_do_not_see_each_other(tiny_llama, tokenizer):
    first = score(tiny_llama, tokenizer, PREFIX, [Question("Peru ->", (" Lima", " Tokyo"), 0)])["logprob"]
    other = score(tiny_llama, tokenizer, PREFIX, [Question("Peru ->", (" Lima", " Paris"), 0)])["logprob"]
    second = score(tiny_llama, tokenizer, PREFIX, [Question("Peru ->", (" Paris", " Lima"), 1)])["logprob"]
    assert first == pytest.approx(other, abs=1e-5) and first == pytest.approx(second, abs=1e-4)


def test_a_prompt_longer_than_the_context_is_refused_and_one_that_just_fits_is_not(tiny_llama, tokenizer):
    longest = max(len(encode(tokenizer, PREFIX)) + len(encode(tokenizer, question.query))
                  + max(len(encode(tokenizer, candidate)) for candidate in question.candidates)
                  for question in QUESTIONS)  # fmt: skip
    tiny_llama.config.max_position_embeddings = longest
    expected = score(tiny_llama, tokenizer, PREFIX, QUESTIONS)
    assert len(expected["exact"]) == len(QUESTIONS)
    tiny_llama.config.max_position_embeddings = longest - 1
    with pytest.raises(UserError, match=f"need {longest} tokens, the context holds {longest - 1}; shorten it"):
        score(tiny_llama, tokenizer, PREFIX, QUESTIONS)
