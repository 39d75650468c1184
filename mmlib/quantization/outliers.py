"""INT8 activations with an explicit set of outlier dimensions (Liu et al., activation analysis, Fig. 3).

The base is LLM.int8() (Dettmers et al. 2022): dimensions with large activations go through a 16-bit product, all
others through an INT8 product with absmax scales, C = sum_{h in O} X_h W_h + S * sum_{h not in O} X8_h W8_h.
The paper then moves the dimension that is an outlier in most layers, or three, from the first sum to the second.
It states neither threshold nor counting sites, so several of both are measured here.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError
from mmlib.quantization.model import GROUPS, linears, visit_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

LEVELS = 127
MOVED = 3
SCALES = ("token", "tensor")
# Where a dimension is counted: inputs of attention and of the FFN, of the output projection, of the down projection.
SITES = {"attention-in": GROUPS[0], "attention-out": GROUPS[1], "ffn-in": GROUPS[2], "ffn-out": GROUPS[3]}
SITE_OF = {group: key for key, group in SITES.items()}
SITE_SETS = {"residual": ("attention-in", "ffn-in"), "all": tuple(SITES)}
Dims = dict[str, list[int]]  # site -> dimensions


def site(name: str) -> str:
    """`model.layers.3.mlp.up_proj` -> `ffn-in`."""
    kind = ".".join(name.split(".")[-2:])
    return next(key for key, kinds in SITES.items() if kind in kinds)


def fake_int8(x: Tensor, dim: int | None) -> Tensor:
    """Round to 255 levels of an absmax scale along `dim` (None: one scale for the whole tensor); same shape."""
    return _int8_(x.clone(), dim)


def _int8_(x: Tensor, dim: int | None) -> Tensor:
    """`fake_int8` in place: on all weights of a model this halves its cost."""
    import torch

    low, high = torch.aminmax(x) if dim is None else torch.aminmax(x, dim=dim, keepdim=True)
    scale = torch.maximum(high, -low).clamp(min=1e-12) / LEVELS
    return x.div_(scale).round_().mul_(scale)


def largest_activations(model: PreTrainedModel, windows: Tensor) -> dict[str, Tensor]:
    """Per site, the largest |x| of every dimension in every layer over all tokens: {site: (layers, dims)}.

    Args:
        windows: token ids (W, L) of calibration text.
    """
    import torch

    found: dict[str, list[Tensor]] = {key: [] for key in SITES}

    def watch(number: int, block: nn.Module, group: tuple[str, ...], x: Tensor) -> None:
        found[SITE_OF[group]].append(x.abs().flatten(0, -2).amax(0))

    visit_inputs(model, windows, watch)
    return {key: torch.stack(rows) for key, rows in found.items()}


def ranked_outliers(largest: dict[str, Tensor], threshold: float, sites: tuple[str, ...]) -> list[tuple[str, int]]:
    """(site, dimension) pairs that reach `threshold` in at least one layer; those in most layers first.

    Equal counts are ordered by the largest activation, then by site and number.
    """
    ranked = []
    for key in sites:
        counts, peaks = (largest[key] >= threshold).sum(0), largest[key].amax(0)
        ranked += [(-counts[d].item(), -peaks[d].item(), key, d) for d in counts.nonzero().flatten().tolist()]
    return [(key, d) for _, _, key, d in sorted(ranked)]


def kept_dims(ranked: list[tuple[str, int]], moved: list[tuple[str, int]]) -> Dims:
    """Outlier dimensions that stay at 16 bits when `moved` are rounded, too."""
    kept: Dims = {key: [] for key in SITES}
    for key, d in ranked:
        if (key, d) not in moved:
            kept[key].append(d)
    return kept


def moved_sets(ranked: list[tuple[str, int]], seed: int) -> dict[str, list[tuple[str, int]]]:
    """Arm -> outlier dimensions that are rounded like the rest: none, the first, the first three, three others.

    Raises:
        UserError: fewer than twice three outliers: three others could not be drawn, or hardly ever differently.
    """
    if len(ranked) < 2 * MOVED:
        raise UserError(f"{len(ranked)} outliers: no {MOVED} others can be drawn beside the first {MOVED}",
                        "lower the threshold of that case in quantization.outliers.cases")  # fmt: skip
    drawn = random.Random(f"outliers/{seed}").sample(ranked[MOVED:], MOVED)
    return {"non-outlier": [], "top1": ranked[:1], "top3": ranked[:MOVED], "random3": drawn}


@contextlib.contextmanager
def int8_activations(model: PreTrainedModel, kept: Dims, scale: str = "token") -> Iterator[None]:
    """Within: INT8 inputs and weights of all block linears, except the input dimensions in `kept`.

    Weights have one scale per output row, activations one per token or per tensor; both are taken over the
    rounded dimensions only. Weights and hooks are restored at the end.
    """
    if scale not in SCALES:
        raise UserError(f"unknown activation scale `{scale}`", f"use one of: {', '.join(SCALES)}")
    parts = linears(model)
    before = {name: linear.weight.data for name, linear in parts.items()}
    hooks = []
    try:
        for name, linear in parts.items():
            dims = kept.get(site(name), [])
            linear.weight.data = _rounded_except(linear.weight.data, dims, 1)
            hooks.append(linear.register_forward_pre_hook(_rounder(dims, -1 if scale == "token" else None)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, linear in parts.items():
            linear.weight.data = before[name]


def _rounded_except(x: Tensor, dims: list[int], dim: int | None) -> Tensor:
    """`fake_int8` with the last axis' entries `dims` neither rounded nor counted in the scale."""
    result = x.clone()
    result[..., dims] = 0.0
    _int8_(result, dim)[..., dims] = x[..., dims]
    return result


def _rounder(dims: list[int], dim: int | None) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_rounded_except(inputs[0], dims, dim), *inputs[1:])

    return hook
