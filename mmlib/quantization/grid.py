"""Uniform quantization grids and round-to-nearest (RTN).

Asymmetric min-max grids as the reference GPTQ code uses them (sheet: GPTQ, step 7):
lo = min(w, 0), hi = max(w, 0), scale = (hi - lo) / (2^b - 1), zero = round(-lo / scale),
Q(w) = scale * (clamp(round(w / scale) + zero, 0, 2^b - 1) - zero).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A grid per row and group: `scale` and `zero` broadcast against the weights they quantize."""

    scale: Tensor
    zero: Tensor
    bits: int

    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes 0 … 2^bits - 1 (as floats) of the nearest grid points."""
        return (weight / self.scale).round_().add_(self.zero).clamp_(0, 2**self.bits - 1)

    def quantize(self, weight: Tensor) -> Tensor:
        """The nearest grid point of every weight."""
        return self.codes(weight).sub_(self.zero).mul_(self.scale)


def fit(weight: Tensor, bits: int, dim: int = -1, symmetric: bool = False) -> Grid:
    """The min-max grid over `dim`, which is kept with size 1.

    Args:
        symmetric: spread the grid evenly around 0 (one level of 2^bits is then wasted).
    """
    import torch

    low = weight.amin(dim, keepdim=True).clamp(max=0)
    high = weight.amax(dim, keepdim=True).clamp(min=0)
    if symmetric:
        high = torch.maximum(low.abs(), high)
        low = -high
    empty = (low == 0) & (high == 0)  # an all-zero row has no range: give it [-1, 1], as the reference does
    low, high = low.masked_fill(empty, -1.0), high.masked_fill(empty, 1.0)
    scale = (high - low) / (2**bits - 1)
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else (-low / scale).round()
    return Grid(scale, zero, bits)


def check_group(layer: str, inputs: int, group: int | None) -> int:
    """The group size to use (the whole row for None); one that does not divide the row is an error."""
    if group is None:
        return inputs
    if group < 1 or inputs % group:
        valid = [size for size in (16, 32, 48, 64, 96, 128, 192) if inputs % size == 0]
        raise UserError(
            f"group size {group} does not divide the {inputs} inputs of {layer}", f"use one of {valid} or 0"
        )
    return group


def rtn(weight: Tensor, bits: int, group: int | None = None, symmetric: bool = False, layer: str = "matrix") -> Tensor:
    """Round-to-nearest: every weight to the nearest point of its row's (or group's) grid.

    Args:
        weight: (out, in).
        group: inputs per grid; None for one grid per row.
    """
    size = check_group(layer, weight.shape[1], group)
    grouped = weight.view(weight.shape[0], -1, size)  # (out, groups, size)
    return fit(grouped, bits, symmetric=symmetric).quantize(grouped).view_as(weight)
