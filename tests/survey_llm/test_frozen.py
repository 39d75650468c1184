"""Decoding rules against transformers' own, speculative sampling against its target, prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.quantization.abilities import Fact, Task
from mmlib.survey_llm import decoding, demonstrations, frozen, smol
from mmlib.survey_llm.smol import Rule


@pytest.mark.parametrize("rule", [Rule(0.7), Rule(k=5), Rule(p=0.6), Rule(1.3, k=20, p=0.9)])
def test_truncation_agrees_with_transformers(rule):
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = 3 * torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    expected = TemperatureLogitsWarper(rule.temperature)(None, logits)
    if rule.k:
        expected = TopKLogitsWarper(rule.k)(None, expected)
    if rule.p < 1:
        expected = TopPLogitsWarper(rule.p)(None, expected)
    assert torch.allclose(smol.truncated(logits, rule), expected.softmax(-1), atol=1e-6)


def test_greedy_continuation_is_what_generate_gives(tiny_llama):
    ids = torch.randint(0, 300, (3, 8))
    tokens, nats = smol.continue_text(tiny_llama, ids, 6, Rule(0.0), seed=0)
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    expected = tiny_llama.generate(ids, max_new_tokens=6, min_new_tokens=6, **options)
    assert torch.equal(tokens, expected[:, 8:])
    assert torch.allclose(nats, smol.surprise(tiny_llama, expected, 6), atol=1e-4)


def test_samples_follow_the_seed(tiny_llama):
    ids = torch.randint(0, 300, (2, 8))
    one, again, other = (smol.continue_text(tiny_llama, ids, 12, Rule(), seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_prompt_read_once_is_continued_as_if_read_for_every_draw(tiny_llama):
    ids = torch.randint(0, 300, (3, 8))
    once, nats = smol.continue_text(tiny_llama, ids, 6, Rule(), seed=1, draws=2)
    each, same = smol.continue_text(tiny_llama, ids.repeat_interleave(2, 0), 6, Rule(), seed=1)
    assert torch.equal(once, each) and torch.allclose(nats, same, atol=1e-4)
    assert not torch.equal(once[::2], once[1::2]), "draws of a prompt differ"


def test_repeats_of_a_prompt_are_told_apart_from_prompts(tiny_llama):
    windows = torch.randint(0, 300, (3, decoding.PROMPT + 5))
    found = decoding.decoding(tiny_llama, windows, "temperature 1", repeats=2)
    tokens, nats = smol.continue_text(tiny_llama, windows[:, : decoding.PROMPT], 5, Rule(), seed=0, draws=2)
    assert len(found) == 2 and len(found[0]["surprise"]) == 3
    for repeat in range(2):
        for prompt in range(3):
            assert found[repeat]["surprise"][prompt] == pytest.approx(nats[2 * prompt + repeat].mean().item(), abs=1e-4)
            assert found[repeat]["distinct"][prompt] == round(
                decoding.distinct(tokens[2 * prompt + repeat].tolist()), 6
            )


def test_repetition_and_distinct_bigrams():
    assert decoding.repeated([1, 2] * 10) == pytest.approx(1 - 2 / 17) and decoding.repeated(list(range(20))) == 0
    assert decoding.distinct([1, 2] * 10) == pytest.approx(2 / 19) and decoding.distinct(list(range(20))) == 1


def test_speculative_sampling_keeps_the_target_and_a_careless_one_does_not():
    """Chi-square against the target; accepting every draft is the planted fault."""
    from scipy.stats import chisquare

    rng = np.random.default_rng(0)
    target, draft = rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(8))
    draws = [decoding.speculate(target, draft, rng) for _ in range(5000)]
    counts = np.bincount([token for token, _ in draws], minlength=8)
    assert chisquare(counts, 5000 * target).pvalue > 0.01
    kept = np.mean([kept for _, kept in draws])
    assert kept == pytest.approx(np.minimum(target, draft).sum(), abs=0.03), "acceptance is 1 - total variation"
    careless = np.bincount(rng.choice(8, 5000, p=draft), minlength=8)
    assert chisquare(careless, 5000 * target).pvalue < 1e-6


def test_prompts_show_other_demonstrations_per_seed_and_wrong_ones_on_demand():
    facts = tuple(Fact(f"q{i}", f"a{i}") for i in range(8))
    task = Task("t", "Do it.", facts, (Fact("x", "y"),), 1, 0)
    assert demonstrations.prompts(task, "0 shots", 0) == "Do it.\n"
    assert demonstrations.prompts(task, "1 shot", 1) == "Do it.\nq4 -> a4\n"
    assert demonstrations.prompts(task, "4 shots, no instruction", 0).startswith("q0 -> a0\n")
    wrong = demonstrations.prompts(task, "4 shots, wrong answers", 0)
    assert wrong == "Do it.\nq0 -> a1\nq1 -> a2\nq2 -> a3\nq3 -> a0\n"


def test_arms_without_chance_run_once():
    settings = {"seeds": [0, 1, 2]}
    names = [shard["name"] for shard in frozen.shards(settings)]
    assert len(names) == len(set(names)) == len(decoding.RULES) + 1 + len(decoding.BEAMS) + 1 + 4 * 3


def test_repeats_of_decoding_are_told_apart(tiny_llama):
    windows = torch.randint(0, 300, (2, decoding.PROMPT + 8), generator=torch.Generator().manual_seed(0))
    sampled = decoding.decoding(tiny_llama, windows, "temperature 1", repeats=3)
    assert len(sampled) == 3 and len(sampled[0]["surprise"]) == 2 and sampled[0] != sampled[1]
    (text_itself,) = decoding.decoding(tiny_llama, windows, decoding.HUMAN, repeats=3)
    expected = smol.surprise(tiny_llama, windows, 8).mean(1).tolist()
    assert text_itself["surprise"] == pytest.approx(expected, abs=1e-5)


def test_the_penalty_is_transformers_own(tiny_llama):
    from transformers import RepetitionPenaltyLogitsProcessor

    draw = torch.Generator().manual_seed(0)
    ids, logits = torch.randint(0, 50, (3, 12), generator=draw), torch.randn(3, 50, generator=draw)
    found = smol.adjusted(None, logits, ids, Rule(0.0, penalty=1.2))
    assert torch.allclose(found, RepetitionPenaltyLogitsProcessor(1.2)(ids, logits))
    assert torch.equal(smol.adjusted(None, logits, ids, Rule(0.0)), logits)


def test_contrast_prefers_what_only_the_long_context_says():
    """Two plausible tokens, equally likely to the expert: the amateur's other one wins; an implausible never."""
    expert = torch.tensor([[0.45, 0.45, 0.099, 0.001]]).log()
    weak = torch.tensor([[0.6, 0.1, 0.299, 0.001]]).log()

    class Amateur:
        def __call__(self, ids, logits_to_keep):
            assert ids.shape == (1, 2)
            return type("Out", (), {"logits": weak[:, None]})

    found = smol.adjusted(Amateur(), expert, torch.zeros(1, 5, dtype=torch.long), Rule(0.0, amateur=2))
    assert found.argmax().item() == 1 and torch.isneginf(found[0, 3])
    assert found[0, 0].item() == pytest.approx(np.log(0.45 / 0.6), abs=1e-5)
