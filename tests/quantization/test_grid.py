"""Grids and RTN against torch's own fake quantization and by hand."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization.grid import fit, rtn


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rtn_per_row_is_torchs_fake_quantization(bits):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(bits))
    grid = fit(weight, bits)
    expected = torch.fake_quantize_per_channel_affine(
        weight, grid.scale[:, 0], grid.zero[:, 0].to(torch.int32), 0, 0, 2**bits - 1
    )
    assert torch.allclose(rtn(weight, bits), expected, atol=1e-6)


def test_grid_by_hand():
    grid = fit(torch.tensor([[-1.0, 0.0, 2.0]]), 2)
    assert grid.scale.item() == 1.0 and grid.zero.item() == 1.0
    assert grid.quantize(torch.tensor([[-1.4, 0.4, 0.6, 9.0]])).tolist() == [[-1.0, 0.0, 1.0, 2.0]]


def test_zero_is_always_a_grid_point_and_range_includes_it():
    weight = torch.rand(5, 16) + 3  # all positive
    grid = fit(weight, 3)
    assert torch.equal(grid.quantize(torch.zeros(5, 1)), torch.zeros(5, 1)) and (grid.zero == 0).all()


def test_at_most_2_to_the_bits_levels_per_group():
    weight = torch.randn(4, 64)
    for part in rtn(weight, 2, 16).view(-1, 16):
        assert len(part.unique()) <= 4


def test_groups_are_never_worse_than_rows():
    weight = torch.randn(32, 128)
    errors = [(rtn(weight, 3, group) - weight).square().mean() for group in (None, 64, 16)]
    assert errors[0] > errors[1] > errors[2]


def test_an_all_zero_row_stays_zero():
    weight = torch.randn(3, 16)
    weight[1] = 0
    result = rtn(weight, 2)
    assert (result[1] == 0).all() and torch.isfinite(result).all()


def test_symmetric_wastes_a_level_asymmetric_does_not():
    weight = torch.linspace(-1, 1, 50)[None]
    assert fit(weight, 2, symmetric=True).zero.item() == 2
    assert fit(torch.rand(1, 50), 2, symmetric=True).quantize(torch.rand(1, 50)).min() >= 0


@pytest.mark.parametrize("group", [7, 128, -1])
def test_a_group_that_does_not_divide_is_named_with_valid_sizes(group):
    with pytest.raises(UserError, match=r"group size -?\d+ does not divide the 576 inputs of model\.x.*64"):
        rtn(torch.randn(2, 576), 4, group, layer="model.x")
