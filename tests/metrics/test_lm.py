"""Perplexity, KL and agreement against transformers' own loss and the definitions."""

from __future__ import annotations

import math

import pytest
import torch

from mmlib.metrics import lm


@pytest.fixture
def windows(tiny_llama):
    return torch.randint(0, tiny_llama.config.vocab_size, (3, 24), generator=torch.Generator().manual_seed(1))


def test_nll_is_the_models_own_loss(tiny_llama, windows):
    metrics = lm.window_metrics(tiny_llama, windows, lm.log_probabilities(tiny_llama, windows))
    with torch.inference_mode():
        losses = [tiny_llama(row[None], labels=row[None]).loss.item() for row in windows]
    assert metrics["nll"] == pytest.approx(losses, abs=1e-5)
    assert lm.perplexity(losses) == pytest.approx(math.exp(sum(losses) / 3))


def test_the_reference_agrees_with_itself_exactly(tiny_llama, windows):
    metrics = lm.window_metrics(tiny_llama, windows, lm.log_probabilities(tiny_llama, windows))
    assert metrics["kl"] == [0.0] * 3 and metrics["top1"] == [1.0] * 3


def test_kl_is_the_definition_from_reference_to_model(tiny_llama, windows):
    reference = lm.log_probabilities(tiny_llama, windows)
    with torch.inference_mode():
        target = tiny_llama(windows).logits.log_softmax(-1)
        tiny_llama.model.layers[0].mlp.down_proj.weight.mul_(0.2)
        own = tiny_llama(windows).logits.log_softmax(-1)
    metrics = lm.window_metrics(tiny_llama, windows, reference)
    expected = [(t.exp() * (t - o)).sum(-1).mean().item() for o, t in zip(own, target, strict=True)]
    assert min(expected) > 1e-4, "the change must be visible for this test to mean anything"
    assert metrics["kl"] == pytest.approx(expected, rel=1e-3)
    agreement = (own.argmax(-1) == target.argmax(-1)).float().mean(-1).tolist()
    assert metrics["top1"] == pytest.approx(agreement)
