"""What rounding costs a matrix product (section 9.5).

Weights and activations are drawn; a few activation dimensions can be made large, as they are in models from some
billion weights on. Grids are those of the quantization study.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.evidence import Evidence
from mmlib.quantization.grid import rtn

if TYPE_CHECKING:
    from torch import Tensor

SIZE, GROUP, TOKENS = 512, 128, 64
OUTLIERS, TIMES = 6, 40  # dimensions, and how much larger they are
BITS = (8, 4, 3, 2)


def rounded(x: Tensor, bits: int, grid: str) -> Tensor:
    """Nearest grid points with one grid for the whole `tensor`, per `row` or per `group` of GROUP in a row."""
    if grid == "tensor":
        return rtn(x.reshape(1, -1), bits).view(x.shape)
    return rtn(x, bits, GROUP if grid == "group" else None)


def smoothed(x: Tensor, weight: Tensor, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """x / s and weight · s with s_j = max|x_j|^share / max|w_j|^(1 - share): the product stays (Xiao et al. 2023)."""
    s = x.abs().amax(0) ** share / weight.abs().amax(0) ** (1 - share)
    return x / s, weight * s


def error(found: Tensor, exact: Tensor) -> float:
    """log10 of the relative error of a product."""
    return float(((found - exact).norm() / exact.norm()).log10())


def matrix_errors(seed: int) -> dict[str, dict[str, float]]:
    """Errors of y = x Wᵀ with rounded weights, or with 8-bit activations (one grid), for one drawn pair.

    With outliers the error is that of the part that the other dimensions contribute, relative to that part: the
    outliers' own part is large and would hide it. Without them it is that of the whole product.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(SIZE, SIZE, generator=draw), torch.randn(TOKENS, SIZE, generator=draw)
    grids = {f"{bits}-bit, {grid}": (bits, grid) for bits in BITS for grid in ("tensor", "row", "group")}
    weights = {name: error(x @ rounded(weight, *how).T, x @ weight.T) for name, how in grids.items()}
    large = x.clone()
    large[:, :OUTLIERS] *= TIMES
    (smooth, stretched), rest = smoothed(large, weight), slice(OUTLIERS, None)

    def clean_part(activations: Tensor, matrix: Tensor) -> float:
        return error(activations[:, rest] @ matrix[:, rest].T, x[:, rest] @ weight[:, rest].T)

    activations = {
        "clean": error(rounded(x, 8, "tensor") @ weight.T, x @ weight.T),
        "outliers": clean_part(rounded(large, 8, "tensor"), weight),
        "outliers, smoothed": clean_part(rounded(smooth, 8, "tensor"), stretched),
        "outliers, split": error(
            rounded(large[:, rest], 8, "tensor") @ weight[:, rest].T, x[:, rest] @ weight[:, rest].T
        ),
    }
    return {"weights": weights, "activations": activations}


def rounding_evidence(seeds: list[int], matrices: int) -> dict[str, Any]:
    """log10 errors per drawn matrix; every seed draws others."""
    evidence = Evidence("survey_llm", "survey_llm-roofline")
    evidence.units("matrix", [f"matrix/{i}" for i in range(matrices)], asked=matrices)
    for metric in ("weights", "activations"):
        evidence.metric(metric, units="matrix", higher_is_better=False, floor=None)
    for seed in seeds:
        found = [matrix_errors(matrices * seed + i) for i in range(matrices)]
        for metric in ("weights", "activations"):
            for arm in found[0][metric]:
                evidence.add(metric, arm=arm, seed=seed, values=[round(f[metric][arm], 6) for f in found])
    return evidence.as_dict()
