"""Preference tuning: losses against their formulas, measures against cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmlib.survey_llm import preferences as m
from mmlib.survey_llm.transformer import Decoder, Shape


@pytest.fixture(scope="module")
def base():
    return Decoder(Shape(width=16, layers=1, head=8), seed=0).eval()


@pytest.fixture(scope="module")
def rows():
    return torch.randint(97, 123, (6, m.PROMPT + m.NEW), generator=torch.Generator().manual_seed(0))


def test_losses_are_the_printed_formulas():
    policy, reference = (
        (torch.tensor([-3.0, -1.0]), torch.tensor([-4.0, -5.0])),
        (torch.tensor([-2.5, -2.0]), torch.tensor([-4.5, -4.0])),
    )
    ratios = [(-3.0 + 2.5, -4.0 + 4.5), (-1.0 + 2.0, -5.0 + 4.0)]  # log of policy over reference, preferred and other
    beta = 0.3
    dpo = np.mean([-math.log(1 / (1 + math.exp(-(beta * w - beta * l)))) for w, l in ratios])  # noqa: E741
    ipo = np.mean([(w - l - 1 / (2 * beta)) ** 2 for w, l in ratios])  # noqa: E741
    reward = np.mean([-math.log(1 / (1 + math.exp(-gap))) for gap in (1.0, 4.0)])
    for kind, value in (("dpo", dpo), ("ipo", ipo), ("reward", reward), ("sft", 2.0 / m.NEW)):
        assert m.loss(kind, beta, policy, reference).item() == pytest.approx(value, rel=1e-5), kind


def test_a_model_that_is_its_reference_has_the_loss_of_a_coin(base, rows):
    pairs = rows.view(3, 2, -1)
    reference = m.logprob(base, rows).view(-1, 2)
    assert m.learner(base, "dpo", 0.1)(pairs, reference)["loss"].item() == pytest.approx(math.log(2), rel=1e-5)
    swapped = m.learner(base, "dpo", 0.1)(pairs, reference.flip(1))["loss"].item()
    assert abs(swapped - math.log(2)) > 1e-4, "a reference of the wrong order is seen"


def test_log_probability_is_that_of_one_byte_after_the_other(base, rows):
    slow = sum(
        base(rows[:1, :at])["logits"][0, -1].log_softmax(-1)[rows[0, at]].item()
        for at in range(m.PROMPT, rows.shape[1])
    )
    assert m.logprob(base, rows)[0].item() == pytest.approx(slow, abs=1e-4)


def test_reward_counts_vowels_of_the_continuation_only():
    row = np.frombuffer(b"a" * m.PROMPT + b"ab" * (m.NEW // 2), np.uint8)
    assert m.reward(row) == 0.5


def test_divergence_is_zero_from_itself_and_the_sum_over_places(base, rows):
    assert np.allclose(m.divergence(base, base, rows), 0, atol=1e-5)
    other = Decoder(Shape(width=16, layers=1, head=8), seed=1).eval()
    p, q = (m.step_logprobs(x, rows[:1])[0] for x in (other, base))
    by_hand = sum(torch.nn.functional.kl_div(q[t], p[t], log_target=True, reduction="sum").item() for t in range(m.NEW))
    assert m.divergence(other, base, rows[:1])[0] == pytest.approx(by_hand, rel=1e-4)


def test_best_of_n_and_its_divergence():
    rewards = np.arange(16.0)[None] / 16
    assert m.best_of(rewards, rewards, 4).tolist() == [[3 / 16, 7 / 16, 11 / 16, 15 / 16]]
    assert m.best_of(rewards, -rewards, 16).tolist() == [[0.0]], "the judge decides, not the reward"
    n, k = 4, 100_000  # k equally likely samples without ties: P(best of n is i) = (i/k)^n - ((i-1)/k)^n
    p = np.diff((np.arange(k + 1) / k) ** n)
    assert m.best_of_divergence(n) == pytest.approx((p * np.log(p * k)).sum(), abs=1e-3)


def test_wins_count_ties_half():
    assert m.wins(np.array([[0.5]]), np.array([[0.5, 0.4, 0.6, 0.5]])).tolist() == [0.5]


def test_learning_raises_the_margin_and_a_planted_swap_lowers_it(base, rows):
    pairs, settings = rows.view(3, 2, -1), {"preference_steps": 15, "preference_batch": 3}
    tuned, swapped = (m.learn(base, "dpo", 0.1, p, settings, 0.01, seed=0) for p in (pairs, pairs.flip(1)))
    gains = [np.subtract(*m.changes(model, base, pairs).T).mean() for model in (tuned, swapped)]
    assert gains[0] > 0.5 and gains[1] < -0.5
    assert not m.changes(base, base, pairs).any(), "the reference itself stays as it was"


def test_sampling_and_ranking(base):
    drawn = m.sample(base, torch.full((2, m.PROMPT), 97), 5, seed=0)
    assert drawn.shape == (2, 5, m.PROMPT + m.NEW) and (drawn[..., : m.PROMPT] == 97).all()
    pairs = m.reward(m.ranked(drawn).numpy())
    assert (pairs[:, 0] == m.reward(drawn.numpy()).max(1)).all() and (pairs[:, 0] >= pairs[:, 1]).all()
    found = m.measure(base, base, drawn[:, 0, : m.PROMPT], drawn.repeat(1, 4, 1), seed=1)
    assert set(found) == {"reward", "win", "kl", "preferred", "other"} and not any(found["preferred"])
    made = m.as_evidence([{"seed": 0, "scores": {"reference": found, **m.chosen(None, drawn.repeat(1, 4, 1))}}],
                         {"preference_prompts": 2})  # fmt: skip
    assert set(made["metrics"]["preferred"]["values"]["reference"]) == {"-"}, (
        "known for all seeds, not measured for each"
    )
    assert set(made["metrics"]["margin"]["values"]) == {"reference"} and len(made["metrics"]["win"]["values"]) == 4
