"""Costs: every arm is measured as often as asked, on a cache of unchanged length."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib.survey_llm import cost


def test_costs_are_measured_on_an_unchanged_cache(tiny_llama):
    costs = cost.token_costs(tiny_llama, length=16, batch=2, repeats=3)
    assert {len(v) for v in costs.values()} == {3} and all(x > 0 for v in costs.values() for x in v)
    made = cost.cost_evidence(costs)
    assert made["metrics"]["log10_ms"]["values"]["decode"]["-"][0] == pytest.approx(np.log10(costs["decode"][0]))
