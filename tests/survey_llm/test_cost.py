"""Costs: every arm is measured as often as asked, on a cache of unchanged length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.survey_llm import cost


def test_costs_are_measured_on_an_unchanged_cache(tiny_llama):
    costs = cost.token_costs(tiny_llama, length=16, batch=2, repeats=3)
    assert {len(v) for v in costs.values()} == {3} and all(x > 0 for v in costs.values() for x in v)
    made = cost.cost_evidence(costs)
    assert made["metrics"]["log10_ms"]["values"]["decode"]["-"][0] == pytest.approx(np.log10(costs["decode"][0]))


def test_shared_keys_and_values_are_what_every_head_would_read():
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(2, cost.HEADS, 4, generator=draw)
    for sets in cost.SHARING.values():
        k, v = torch.randn(2, 2, sets, 5, 4, generator=draw)
        each = [x.repeat_interleave(cost.HEADS // sets, 1) for x in (k, v)]  # every head with its own copy
        plain = torch.nn.functional.scaled_dot_product_attention(q[:, :, None], *each)[:, :, 0]
        assert torch.allclose(cost.attend(q, k, v), plain, atol=1e-5)
    costs = cost.attention_costs(length=8, batch=2, repeats=3)
    assert set(costs) == set(cost.SHARING) and len(cost.cost_evidence(costs)["units"]["repeat"]) == 3
