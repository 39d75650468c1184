"""GPTQ against independent oracles: the five identities of the algorithm, in float64 where exactness matters."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization.gptq import gptq, hessian, inverse_factor
from mmlib.quantization.stored import fit
from mmlib.quantization.stored import rtn as rounded_to_nearest

CASES = [(bits, group, order) for bits in (2, 3, 4) for group in (None, 16) for order in (False, True)]


def problem(seed, rows=12, columns=48, tokens=200, dtype=torch.float64):
    """A random weight and the Hessian of correlated inputs."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=draw, dtype=dtype)
    mix = torch.randn(columns, columns, generator=draw, dtype=dtype)
    inputs = torch.randn(tokens, columns, generator=draw, dtype=dtype) @ (mix * 0.3 + torch.eye(columns, dtype=dtype))
    return weight, inputs.T @ inputs * (2 / tokens)


def rtn(weight, bits, group=None):
    return rounded_to_nearest(weight, bits, group)[0]


def damped(h, damping=0.01):
    return h + damping * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)


def obs(weight, h, bits, group, act_order, damping=0.01):
    """Column-by-column optimal brain surgeon with explicit downdates of the inverse: slow, no Cholesky, no blocks."""
    order = torch.argsort(h.diagonal(), descending=True, stable=True) if act_order else torch.arange(len(h))
    w, inverse = weight[:, order].clone(), torch.linalg.inv(damped(h, damping)[order][:, order])
    q, size = torch.zeros_like(w), group or w.shape[1]
    for j in range(w.shape[1]):
        if j % size == 0:
            grid = fit(w[:, j : j + size], bits)
        q[:, j] = grid.quantize(w[:, j : j + 1])[:, 0]
        error = (w[:, j] - q[:, j]) / inverse[j, j]
        w -= error[:, None] * inverse[j]
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    result = torch.empty_like(q)
    result[:, order] = q
    return result


def proxy(weight, q, h):
    """1/2 tr((W - Q) H (W - Q)^T) per row."""
    return ((weight - q) @ h * (weight - q)).sum(1) / 2


@pytest.mark.parametrize(("bits", "group", "act_order"), CASES)
def test_a_lazy_blocks_and_cholesky_equal_explicit_obs(bits, group, act_order):
    for seed in range(3):
        weight, h = problem(seed)
        ours = gptq(weight, h, bits, group, act_order=act_order).weight
        assert torch.allclose(ours, obs(weight, h, bits, group, act_order), atol=1e-9)


@pytest.mark.parametrize(("bits", "group", "act_order"), CASES)
def test_b_the_loss_is_the_proxy_objective_exactly(bits, group, act_order):
    weight, h = problem(1)
    result = gptq(weight, h, bits, group, act_order=act_order)
    assert torch.allclose(result.loss, proxy(weight, result.weight, damped(h)), rtol=1e-9)


@pytest.mark.parametrize("group", [None, 16])
def test_c_with_a_diagonal_hessian_gptq_is_rtn(group):
    weight, h = problem(2)
    diagonal = torch.diag(h.diagonal())
    assert torch.allclose(gptq(weight, diagonal, 3, group, act_order=False).weight, rtn(weight, 3, group), atol=1e-12)


def test_d_at_equal_grid_gptq_has_the_lower_proxy_loss():
    for seed in range(60):
        weight, h = problem(seed)
        ours = gptq(weight, h, 2, act_order=False)
        assert ours.loss.sum() < proxy(weight, rtn(weight, 2), damped(h)).sum()


def test_e_block_width_does_not_change_the_result_without_groups():
    weight, h = problem(3)
    results = [gptq(weight, h, 3, block=block).weight for block in (1, 7, 16, 48, 500)]
    assert all(torch.allclose(results[0], other, atol=1e-10) for other in results[1:])


def test_the_oracle_can_tell_a_wrong_update(monkeypatch):
    """A planted fault (corrections with the wrong sign) must break identities (a) and (d)."""
    weight, h = problem(4)
    original = torch.Tensor.addr_
    monkeypatch.setattr(torch.Tensor, "addr_", lambda self, x, y, alpha: original(self, x, y, alpha=-alpha))
    wrong = gptq(weight, h, 2, act_order=False).weight
    assert not torch.allclose(wrong, obs(weight, h, 2, None, False), atol=1e-3)
    assert proxy(weight, wrong, damped(h)).sum() > proxy(weight, rtn(weight, 2), damped(h)).sum()


def test_dead_inputs_get_zero_weights_and_change_nothing_else():
    weight, h = problem(5)
    h[7], h[:, 7] = 0, 0
    before = weight.clone(), h.clone()
    result = gptq(weight, h, 4).weight
    assert (result[:, 7] == 0).all() and torch.isfinite(result).all()
    assert torch.equal(weight, before[0]) and torch.equal(h, before[1])


def test_hessian_is_the_running_mean_over_samples():
    inputs = torch.randn(3, 10, 8)
    mean = torch.zeros(8, 8)
    for count, row in enumerate(inputs.reshape(-1, 8)):
        mean += (2 * torch.outer(row, row) - mean) / (count + 1)
    assert torch.allclose(hessian(inputs), mean, atol=1e-5)


def test_scale_of_the_hessian_cancels():
    weight, h = problem(6)
    assert torch.allclose(gptq(weight, h, 3).weight, gptq(weight, 100 * h, 3).weight)


def test_inverse_factor_is_upper_and_reproduces_the_inverse():
    _, h = problem(7)
    factor = inverse_factor(h, 0.01)
    assert torch.equal(factor, factor.triu()) and torch.allclose(factor.T @ factor, torch.linalg.inv(damped(h)))


def test_a_hessian_that_is_not_positive_definite_names_the_layer():
    h = torch.eye(16)
    h[0, 0] = -5.0
    with pytest.raises(UserError, match=r"model\.layers\.3.*raise quantization damping"):
        gptq(torch.randn(4, 16), h, 4, layer="model.layers.3")


def test_two_runs_are_byte_identical():
    weight, h = problem(8, dtype=torch.float32)
    assert torch.equal(gptq(weight, h, 2, 16).weight, gptq(weight, h, 2, 16).weight)


@pytest.mark.parametrize(("bits", "group", "act_order"), CASES)
def test_codes_on_the_grids_of_the_result_are_the_weight_bit_for_bit(bits, group, act_order):
    weight, h = problem(9, dtype=torch.float32)
    result = gptq(weight, h, bits, group, act_order=act_order)
    codes = result.grids.codes(result.weight)
    assert torch.equal(codes, codes.round()) and codes.min() >= 0 and codes.max() <= 2**bits - 1
    assert torch.equal(result.grids.dequantize(codes), result.weight)
    assert result.grids.scale.shape == (12, 48 // (group or 48))
    assert torch.equal(result.grids.scale, result.grids.scale.half().float()), "a scale needs more than 16 bits"


def test_a_range_too_small_for_a_16_bit_scale_rounds_to_nothing_and_not_to_nan():
    tiny = torch.full((2, 16), 1e-12)
    weight, grids = rounded_to_nearest(tiny, 8, 16)
    assert torch.isfinite(weight).all() and weight.abs().max() <= grids.scale.max() and grids.scale.min() > 0
