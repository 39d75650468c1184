"""Preference tuning of a real model's class: reward, losses, divergence, best of N at a divergence."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from mmlib.survey_llm import frontier, preferences, real
from mmlib.survey_llm import steering as m


@pytest.fixture
def rows():
    return torch.randint(0, 300, (4, m.PROMPT + m.NEW), generator=torch.Generator().manual_seed(0))


def test_reward_is_the_share_of_short_words():
    assert m.reward("the cat, elephants") == pytest.approx(2 / 3) and m.reward("123 --") == 0


def test_log_probability_is_that_of_one_token_after_the_other(tiny_llama, rows):
    with torch.inference_mode():
        slow = sum(tiny_llama(rows[:1, :at]).logits[0, -1].log_softmax(-1)[rows[0, at]].item()
                   for at in range(m.PROMPT, rows.shape[1]))  # fmt: skip
        assert m.logprob(tiny_llama, rows)[0].item() == pytest.approx(slow, abs=1e-3)


def test_only_adapters_of_the_last_blocks_learn_and_the_reference_comes_back(tiny_llama, rows, monkeypatch):
    monkeypatch.setattr(m, "LAYERS", 1)
    before = {name: weight.clone() for name, weight in tiny_llama.state_dict().items()}
    pairs = rows.view(2, 2, -1)
    reference = m.reference_logprobs(tiny_llama, pairs)
    settings = {"steps": 6, "batch": 2}
    margins = []
    for data in (pairs, pairs.flip(1)):  # the planted fault: preferred and other exchanged
        ours = reference if data is pairs else reference.flip(1)
        adapted = m.tuned(tiny_llama, "DPO", data, ours, settings, 0.01, seed=0)
        trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
        assert trained and all("lora_" in name and "layers.1." in name for name in trained)
        with torch.inference_mode():
            change = m.logprob(adapted, rows).view(-1, 2) - reference
        margins.append((change[:, 0] - change[:, 1]).mean().item())
        assert (m.divergence(adapted, rows) > 0).all()
        model = adapted.unload()
        assert model.state_dict().keys() == before.keys()
        assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert margins[0] > 0.1 and margins[1] < -0.1


def test_an_adapter_begins_as_the_reference(tiny_llama, rows):
    adapted = m.with_adapter(tiny_llama, seed=0).eval()
    assert np.allclose(m.divergence(adapted, rows), 0, atol=1e-5)
    adapted.unload()


def test_best_of_n_is_the_mean_over_all_choices_of_n():
    rng = np.random.default_rng(0)
    found, rivals = rng.integers(0, 9, (2, m.DRAWS)) / 8, rng.integers(0, 9, (2, m.RIVALS)) / 8
    for count in (2, 4):
        result = m.best_at(found, rivals, preferences.best_of_divergence(count))
        for row in range(2):
            best = np.array([max(part) for part in combinations(found[row], count)])
            assert result["reward"][row] == pytest.approx(best.mean(), abs=1e-4)
            wins = preferences.wins(best[None], rivals[row : row + 1])[0]
            assert result["win"][row] == pytest.approx(wins, abs=1e-4)
    assert m.best_at(found, rivals, 0.0)["reward"] == pytest.approx(found.mean(1), abs=1e-5)
    assert m.best_at(found, rivals, 99.0)["reward"] == pytest.approx(found.max(1), abs=1e-5)


def test_a_rate_that_goes_too_far_is_not_chosen():
    tried = {0.1: {"win": [0.6], "kl": [0.5]}, 0.2: {"win": [0.7], "kl": [1.5]}, 0.4: {"win": [0.9], "kl": [20.0]}}
    assert m.chosen(tried) == 0.2
    assert m.chosen({rate: found | {"kl": [rate * 100]} for rate, found in tried.items()}) == 0.1, (
        "the nearest, if all are far"
    )


def test_evidence_of_both_studies_and_their_settings():
    scores = {"reward": [0.5, 0.6], "win": [0.4, 0.7], "kl": [1.0, 2.0], "text": "x"}
    made = m.as_evidence([{"seed": s, "scores": {m.REFERENCE: {"reward": [0.1, 0.2], "win": [0.5, 0.5]}, "DPO": scores}}
                          for s in (0, 1)], {"prompts": 2})  # fmt: skip
    assert set(made["metrics"]["win"]["values"][m.REFERENCE]) == {"-"}, "a coin is known, not measured"
    assert set(made["metrics"]["kl"]["values"]) == {"DPO"}
    assert set(real.SECTIONS) == set(real.STUDIES)


def test_the_frontier_between_rates_grows_as_the_root_of_the_divergence():
    rates = {"0.1": {"kl": [4.0], "win": [0.9]}, "0.01": {"kl": [1.0], "win": [0.7]}}
    for nats, win in ((0.0, 0.5), (0.25, 0.6), (1.0, 0.7), (2.25, 0.8), (9.0, 0.9)):
        assert frontier.at_divergence(rates, nats) == pytest.approx([win])
    wins = {name: found | {"reward": [0.1]} for name, found in rates.items()}
    made = frontier.as_evidence(
        [{"seed": 0, "near": wins, "scores": {"best of 16, true reward": {"win": [0.8]}}}], {"preference_prompts": 1}
    )
    assert {frontier.BEST, frontier.AT_BEST, "DPO, rate 0.1"} <= set(made["metrics"]["win"]["values"])
