"""Numbers as a quantized model stores them: scales, and whatever is not rounded, at 16 bits.

Scores come from exactly the numbers that a packed checkpoint holds (`packed`), so that a size and a score are about
one and the same model: sums run in float32, but no weight and no scale has more than the 16 bits that are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmlib.quantization import grid
from mmlib.quantization.grid import Grid, check_group

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALLEST = 2.0**-24  # of float16: a scale must not become 0


@dataclass(frozen=True)
class Grids:
    """All grids of one linear: scale, zero (out, groups), and the number of the group of every input (in,)."""

    scale: Tensor
    zero: Tensor
    group_of: Tensor
    bits: int

    def codes(self, weight: Tensor) -> Tensor:
        """Integer codes (out, in) of a weight (out, in) that lies on these grids."""
        return (weight / self.scale[:, self.group_of]).round_().add_(self.zero[:, self.group_of])

    def dequantize(self, codes: Tensor) -> Tensor:
        """The weight (out, in) of codes (out, in), bit for bit as rounding left it."""
        return (codes - self.zero[:, self.group_of]).mul_(self.scale[:, self.group_of])

    def rows(self, first: int, last: int) -> Grids:
        """Those of some rows: a linear of several that were rounded as one stacked matrix."""
        return Grids(self.scale[first:last], self.zero[first:last], self.group_of, self.bits)


def fit(weight: Tensor, bits: int, dim: int = -1, symmetric: bool = False) -> Grid:
    """`grid.fit` with the scale as it is stored, rounded to float16 (and the weight's type again)."""
    found = grid.fit(weight, bits, dim, symmetric)
    return Grid(found.scale.half().to(weight.dtype).clamp_(min=SMALLEST), found.zero, bits)


def rtn(weight: Tensor, bits: int, group: int | None = None, layer: str = "matrix") -> tuple[Tensor, Grids]:
    """Round-to-nearest of a weight (out, in) on stored grids, and these.

    Args:
        group: inputs per grid; None for one grid per row.
    """
    import torch

    size = check_group(layer, weight.shape[1], group)
    grouped = weight.view(weight.shape[0], -1, size)  # (out, groups, size)
    found = fit(grouped, bits)
    group_of = torch.arange(weight.shape[1]) // size
    return found.quantize(grouped).view_as(weight), Grids(found.scale[..., 0], found.zero[..., 0], group_of, bits)


def at_16_bits(model: nn.Module) -> None:
    """Round every parameter to float16, in place; it is kept as float32, in which all sums run."""
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
