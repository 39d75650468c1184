"""Quantize the seven linears of every decoder block of a Llama-type model, in place.

GPTQ is true-sequential: blocks in order, each calibrated on the outputs of the already quantized ones, and inside
a block {q, k, v}, {o}, {gate, up}, {down}, each on inputs that the quantized linears before it produce. All
calibration windows go through a block in one forward pass; a hook quantizes a group of linears in the moment its
input arrives, just before they run, so the whole scheme costs one ordinary forward pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError
from mmlib.quantization import bitmap
from mmlib.quantization.gptq import Prepared, hessian, prepare, round_columns
from mmlib.quantization.grid import check_group
from mmlib.quantization.stored import Grids, rtn

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

# Linears of a group read the same input.
GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
KINDS = tuple(kind.rpartition(".")[2] for group in GROUPS for kind in group)  # q, k, v, o, gate, up, down


@dataclass(frozen=True)
class Spec:
    """How to quantize: `method` is rtn or gptq, `group` None means one grid per row."""

    method: str
    bits: int
    group: int | None = None
    act_order: bool = True
    damping: float = 0.01


@dataclass
class Report:
    """Grids of every rounded linear, GPTQ loss per kind (summed over blocks), and where the seconds went.

    Seconds are never written to results.
    """

    grids: dict[str, Grids] = field(default_factory=dict)
    loss: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linears that are quantized, by full name; embeddings, norms and output layer are not among them."""
    names = [f"model.layers.{i}.{kind}" for i in range(len(model.model.layers)) for g in GROUPS for kind in g]
    return {name: model.get_submodule(name) for name in names}


def quantize_model(
    model: PreTrainedModel, spec: Spec, calibration: Tensor | None = None, bit_map: dict[str, int] | None = None
) -> Report:
    """Quantize `model` in place and report.

    Args:
        calibration: token ids (W, L), needed by gptq.
        bit_map: pattern of names -> bits, where they differ from `spec.bits` (`bitmap.resolve`; 16 keeps a linear).

    Raises:
        UserError: unknown method, no calibration, a group size that fits no row, or a bit map that names no linear.
    """
    if spec.method not in ("rtn", "gptq"):
        raise UserError(f"unknown method `{spec.method}`", "use rtn or gptq")
    parts = linears(model)
    widths = bitmap.resolve(bit_map or {}, list(parts), spec.bits)
    for name, linear in parts.items():  # before any work: nothing is lost to a bad group size
        check_group(name, linear.in_features, spec.group)
    if spec.method == "rtn":
        return _to_nearest(parts, spec, widths)
    if calibration is None:
        raise UserError("gptq has no calibration text", "pass token windows (W, L)")
    return _sequential(model, spec, calibration, widths)


def _to_nearest(parts: dict[str, nn.Linear], spec: Spec, widths: dict[str, int]) -> Report:
    report = Report()
    for name, linear in parts.items():
        if widths[name] != bitmap.KEPT:
            linear.weight.data, report.grids[name] = rtn(linear.weight.data, widths[name], spec.group, layer=name)
    return report


def visit_inputs(
    model: PreTrainedModel, windows: Tensor, visit: Callable[[int, nn.Module, tuple[str, ...], Tensor], None]
) -> None:
    """Run token windows (W, L) once; just before a group of linears runs, call visit(block number, block, group, x).

    x: what the linears of the group read, (W, L, in_features). What `visit` changes acts on everything after it.
    """
    import torch

    def hook(number: int, block: nn.Module, group: tuple[str, ...]) -> Any:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            visit(number, block, group, inputs[0])

        return block.get_submodule(group[0]).register_forward_pre_hook(before)

    hooks = [hook(number, block, group) for number, block in enumerate(model.model.layers) for group in GROUPS]
    try:
        with torch.no_grad():  # not inference_mode: LoRA could not be trained on weights made there
            model.model(windows.to(model.device), use_cache=False)
    finally:
        for each in hooks:
            each.remove()


def split_rows(stacked: Any, parts: list[nn.Linear]) -> list[tuple[Tensor, Tensor, Grids]]:
    """(weight, loss, grids) of every linear of a group that was rounded as one stacked matrix."""
    found, first = [], 0
    for part in parts:
        rows = slice(first, first := first + part.out_features)
        found.append((stacked.weight[rows].clone(), stacked.loss[rows], stacked.grids.rows(rows.start, rows.stop)))
    return found


def round_stacked(
    parts: dict[str, nn.Linear], prepared: Prepared, widths: dict[str, int], group: int | None
) -> dict[str, tuple[Tensor, Tensor, Grids]]:
    """Name -> (weight, loss, grids) of linears that read the same input; those kept at 16 bits are left out.

    Rows are independent given the Hessian, so all linears of one width are one stacked matrix.
    """
    import torch

    found: dict[str, tuple[Tensor, Tensor, Grids]] = {}
    for bits in sorted({widths[name] for name in parts} - {bitmap.KEPT}):
        alike = {name: part for name, part in parts.items() if widths[name] == bits}
        stacked = torch.cat([part.weight.data for part in alike.values()])
        rounded = round_columns(stacked, prepared, bits, group, layer=next(iter(alike)))
        found |= zip(alike, split_rows(rounded, list(alike.values())), strict=True)
    return found


def _sequential(model: PreTrainedModel, spec: Spec, calibration: Tensor, widths: dict[str, int]) -> Report:
    report, started = Report(), time.perf_counter()

    def spend(name: str, since: float) -> float:
        now = time.perf_counter()
        report.seconds[name] = report.seconds.get(name, 0.0) + now - since
        return now

    def quantize(number: int, block: nn.Module, group: tuple[str, ...], x: Tensor) -> None:
        parts = {f"model.layers.{number}.{kind}": block.get_submodule(kind) for kind in group}
        if all(widths[name] == bitmap.KEPT for name in parts):
            return
        since = time.perf_counter()
        h = hessian(x)
        since = spend("hessian", since)
        prepared = prepare(h, damping=spec.damping, act_order=spec.act_order, layer=next(iter(parts)))
        since = spend("cholesky", since)
        for name, (weight, loss, grids) in round_stacked(parts, prepared, widths, spec.group).items():
            parts[name].weight.data, report.grids[name] = weight, grids
            short = name.rpartition(".")[2]
            report.loss[short] = report.loss.get(short, 0.0) + loss.sum().item()
        spend("columns", since)

    visit_inputs(model, calibration, quantize)
    spend("forward", started + sum(report.seconds.values()))
    return report
