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
from mmlib.quantization.gptq import gptq, hessian
from mmlib.quantization.grid import check_group, rtn

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
    """GPTQ loss per kind of linear (summed over blocks), and where the seconds went (never written to results)."""

    loss: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linears that are quantized, by full name; embeddings, norms and output layer are not among them."""
    names = [f"model.layers.{i}.{kind}" for i in range(len(model.model.layers)) for g in GROUPS for kind in g]
    return {name: model.get_submodule(name) for name in names}


def quantize_model(model: PreTrainedModel, spec: Spec, calibration: Tensor | None = None) -> Report:
    """Quantize `model` in place and report.

    Args:
        calibration: token ids (W, L), needed by gptq.
    """
    if spec.method not in ("rtn", "gptq"):
        raise UserError(f"unknown method `{spec.method}`", "use rtn or gptq")
    for name, linear in linears(model).items():  # before any work: nothing is lost to a bad group size
        check_group(name, linear.in_features, spec.group)
    if spec.method == "rtn":
        for name, linear in linears(model).items():
            linear.weight.data = rtn(linear.weight.data, spec.bits, spec.group, layer=name)
        return Report()
    if calibration is None:
        raise UserError("gptq has no calibration text", "pass token windows (W, L)")
    return _sequential(model, spec, calibration)


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


def split_rows(stacked: Any, parts: list[nn.Linear]) -> Any:
    """(weight, loss) of every linear of a group that was rounded as one stacked matrix."""
    rows = [part.out_features for part in parts]
    return zip(stacked.weight.split(rows), stacked.loss.split(rows), strict=True)


def _sequential(model: PreTrainedModel, spec: Spec, calibration: Tensor) -> Report:
    import torch

    report = Report()

    def quantize(number: int, block: nn.Module, group: tuple[str, ...], x: Tensor) -> None:
        started = time.perf_counter()
        h = hessian(x)
        elapsed = time.perf_counter() - started
        parts = [block.get_submodule(kind) for kind in group]
        stacked = torch.cat([part.weight for part in parts])  # rows are independent given H
        layer = f"model.layers.{number}.{group[0]}"
        result = gptq(stacked, h, spec.bits, spec.group, damping=spec.damping, act_order=spec.act_order, layer=layer)
        for kind, part, (weight, loss) in zip(group, parts, split_rows(result, parts), strict=True):
            part.weight.data = weight.clone()
            short = kind.split(".")[-1]
            report.loss[short] = report.loss.get(short, 0.0) + loss.sum().item()
        spent = (("hessian", elapsed), ("cholesky", result.seconds[0]), ("columns", result.seconds[1]))
        for name, seconds in spent:
            report.seconds[name] = report.seconds.get(name, 0.0) + seconds

    started = time.perf_counter()
    visit_inputs(model, calibration, quantize)
    spent = sum(report.seconds.values())
    report.seconds["forward"] = time.perf_counter() - started - spent
    return report
