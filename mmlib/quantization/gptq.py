"""GPTQ of one weight matrix, given the Hessian of its inputs (Frantar et al. 2022; sheet section 4).

Works on the transposed weight (in, out): a column of the paper is then a contiguous row in memory, which makes
the loop over columns about as fast as its arithmetic. Rows of the weight are independent given H, so linears that
read the same input (q, k, v; gate, up) are stacked and share one loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.quantization.grid import check_group
from mmlib.quantization.stored import Grids, fit

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 64  # measured: twice as fast as the reference's 128 here; the result is the same
LEAF = 128  # triangles up to this size are inverted by the library in one go
STRIP = 192  # columns of the Hessian at a time: saves over a third of its product


@dataclass(frozen=True)
class Prepared:
    """What GPTQ must know of a linear's inputs; independent of bit width and grouping."""

    order: Tensor  # (in,) columns in the order in which they are rounded
    dead: Tensor  # (in,) inputs that are always 0
    factor: Tensor  # (in, in) of the permuted Hessian, see `inverse_factor`


@dataclass(frozen=True)
class Rounded:
    """Result of GPTQ: dequantized weight (out, in), each output row's loss (out,), and the grids of the weight.

    Summed over rows the loss is 1/2 tr((W - Q) H (W - Q)^T) with the damped H.
    """

    weight: Tensor
    loss: Tensor
    grids: Grids


def hessian(inputs: Tensor) -> Tensor:
    """Running mean over tokens of 2 x x^T in float32: (tokens, in) -> (in, in). Only its shape matters."""
    flat = inputs.reshape(-1, inputs.shape[-1]).float()
    width = flat.shape[1]
    result = flat.new_empty(width, width)
    for start in range(0, width, STRIP):  # symmetric: only the strips right of the diagonal are multiplied
        end = min(start + STRIP, width)
        result[start:end, start:] = flat[:, start:end].T @ flat[:, start:]
        result[end:, start:end] = result[start:end, end:].T
    return result.mul_(2.0 / flat.shape[0])


def inverse_factor(h: Tensor, damping: float, layer: str = "matrix") -> Tensor:
    """Upper Cholesky factor U of the damped inverse Hessian: H^-1 = U^T U (in, in)."""
    import torch

    # Reversed, H = R R^T with R upper, so U = R^-1: half the work of inverting H and factoring the inverse.
    reverse = h.flip(0, 1)
    reverse.diagonal().add_(damping * h.diagonal().mean())
    try:
        lower = torch.linalg.cholesky(reverse)
    except torch.linalg.LinAlgError as error:
        culprit = f"the Hessian of {layer} is not positive definite at damping {damping}"
        raise UserError(culprit, "raise quantization damping or give more calibration tokens") from error
    return _invert_lower(lower).flip(0, 1)


def _invert_lower(lower: Tensor) -> Tensor:
    """Inverse of a lower triangular matrix by halves: a third of the time of solving against the identity."""
    import torch

    size = len(lower)
    if size <= LEAF:
        return torch.linalg.solve_triangular(lower, torch.eye(size).to(lower), upper=False)
    half = size // 2
    first, last = _invert_lower(lower[:half, :half]), _invert_lower(lower[half:, half:])
    result = torch.zeros_like(lower)
    result[:half, :half], result[half:, half:] = first, last
    result[half:, :half] = last @ (lower[half:, :half] @ first).neg_()
    return result


def prepare(h: Tensor, *, damping: float = 0.01, act_order: bool = True, layer: str = "matrix") -> Prepared:
    """Order of the columns and inverse factor of a Hessian (in, in), which is not changed.

    With act-order, columns whose inputs are strongest come first.
    """
    import torch

    dead = h.diagonal() == 0
    h = h.clone()
    h.diagonal()[dead] = 1.0
    order = torch.argsort(h.diagonal(), descending=True, stable=True) if act_order else torch.arange(len(h))
    factor = inverse_factor(h[order][:, order], damping, layer)
    return Prepared(order, dead, factor)


def gptq(
    weight: Tensor,
    h: Tensor,
    bits: int,
    group: int | None = None,
    *,
    damping: float = 0.01,
    act_order: bool = True,
    symmetric: bool = False,
    block: int = BLOCK,
    layer: str = "matrix",
) -> Rounded:
    """Quantize a weight column by column, letting later columns make up for each rounding error.

    Args:
        weight: (out, in).
        h: Hessian of the inputs (in, in).
        group: inputs per grid; None for one grid per row.
        block: lazy-update width; it changes speed, not the result.
    """
    check_group(layer, weight.shape[1], group)  # before the expensive part
    prepared = prepare(h, damping=damping, act_order=act_order, layer=layer)
    return round_columns(weight, prepared, bits, group, symmetric=symmetric, block=block, layer=layer)


def round_columns(
    weight: Tensor,
    prepared: Prepared,
    bits: int,
    group: int | None = None,
    *,
    symmetric: bool = False,
    block: int = BLOCK,
    layer: str = "matrix",
) -> Rounded:
    """`gptq` of a weight whose Hessian is prepared: one Hessian serves every width and group size.

    With groups the grid of a group is fitted when the loop reaches it, to the weights as corrected so far (the
    reference's behaviour); with act-order a group is then a run of the permuted columns, so the packed format
    needs an index of groups.
    """
    import torch

    size = check_group(layer, weight.shape[1], group)
    columns = weight.T.contiguous()  # (in, out)
    columns[prepared.dead] = 0.0
    # A block as wide as a group: every grid is then fitted to weights that carry all earlier corrections.
    width = block if group is None else size
    quantized, loss, fitted = _columns(columns[prepared.order], prepared.factor, bits, size, symmetric, width)
    result, group_of = torch.empty_like(quantized), torch.empty_like(prepared.order)
    result[prepared.order] = quantized
    group_of[prepared.order] = torch.arange(len(group_of)) // size
    scale, zero = (torch.stack(parts, dim=1) for parts in zip(*fitted, strict=True))  # (out, groups)
    return Rounded(result.T.contiguous(), loss, Grids(scale, zero, group_of, bits))


def _columns(
    w: Tensor, factor: Tensor, bits: int, size: int, symmetric: bool, block: int
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """The loop: `w` (in, out) in processing order is overwritten.

    Returns:
        quantized (in, out), loss (out,), and scale and zero (out,) of every group.
    """
    import torch

    quantized, loss, fitted = torch.empty_like(w), w.new_zeros(w.shape[1]), []
    errors = w.new_empty(min(block, len(w)), w.shape[1])
    diagonal = factor.diagonal().tolist()
    now, done, slots = w.unbind(0), quantized.unbind(0), errors.unbind(0)  # views: slicing once, not per column
    for start in range(0, len(w), block):
        end = min(start + block, len(w))
        if start % size == 0:
            grid = fit(w[start : start + size], bits, dim=0, symmetric=symmetric)
            scale, zero = grid.scale[0], grid.zero[0]
            fitted.append((scale, zero))
        for j in range(start, end):
            # `Grid.quantize`, written out in place: at this size the calls cost more than the arithmetic.
            q = torch.div(now[j], scale, out=done[j]).round_().add_(zero).clamp_(0, 2**bits - 1).sub_(zero).mul_(scale)
            error = torch.sub(now[j], q, out=slots[j - start]).div_(diagonal[j])
            if j + 1 < end:
                w[j + 1 : end].addr_(factor[j, j + 1 : end], error, alpha=-1)
        block_errors = errors[: end - start]
        loss += block_errors.square().sum(0) / 2
        w[end:].addmm_(factor[start:end, end:].T, block_errors, alpha=-1)
    return quantized, loss, fitted
