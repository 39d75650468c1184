"""Rounding of drawn matrices: finer grids lose less, smoothing leaves the product as it is."""

from __future__ import annotations

import pytest
import torch

from mmlib.survey_llm import rounding as m


def test_smoothing_changes_no_product_and_levels_the_range():
    x, weight = torch.randn(8, 16), torch.randn(4, 16)
    x[:, 0] *= 40
    smooth, stretched = m.smoothed(x, weight)
    assert torch.allclose(smooth @ stretched.T, x @ weight.T, rtol=1e-3, atol=1e-3)
    assert smooth.abs().max() / smooth.abs().mean() < x.abs().max() / x.abs().mean()


def test_finer_grids_and_more_bits_lose_less_and_outliers_spoil_one_grid():
    found = m.matrix_errors(seed=0)
    weights, activations = found["weights"], found["activations"]
    for bits in m.BITS:
        assert weights[f"{bits}-bit, group"] < weights[f"{bits}-bit, row"] < weights[f"{bits}-bit, tensor"]
    assert weights["8-bit, row"] < weights["4-bit, row"] < weights["2-bit, row"]
    assert activations["outliers"] > activations["outliers, smoothed"] > activations["outliers, split"]


def test_error_is_the_relative_one():
    assert m.error(torch.tensor([1.1, 0.0]), torch.tensor([1.0, 0.0])) == pytest.approx(-1, abs=1e-5)


def test_evidence_draws_other_matrices_for_every_seed():
    values = m.rounding_evidence([0, 1], 2)["metrics"]["weights"]["values"]["4-bit, row"]
    assert len({v for row in values.values() for v in row}) == 4
