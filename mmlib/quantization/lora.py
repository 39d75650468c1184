"""LoRA on a model of which nothing else may move: put on, checked against the grids below, folded in, or taken off.

y = dequant(W_q) x + (alpha / r) B A x, W_q frozen (section 3 of the paper). A merged sum would lie on no grid any more:
it would no longer be a low-bit weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.quantization.model import KINDS, linears

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from transformers import PreTrainedModel

    from mmlib.quantization.stored import Grids


def add(model: PreTrainedModel, rank: int, alpha: int, seed: int) -> PreTrainedModel:
    """LoRA on all seven linears of every block; everything else is frozen. Step 0 changes nothing (B = 0).

    Returns:
        `model` itself, with adapters inside (not the PEFT wrapper), so that every metric runs on it unchanged.

    Raises:
        UserError: it has an adapter already.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    if found := next((name for name, _ in model.named_modules() if "lora_" in name), None):
        raise UserError(f"the model already has an adapter ({found})", "start from the quantized model without it")
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(KINDS), lora_dropout=0.0, bias="none")
    return get_peft_model(model, config).base_model.model


def refuse_off_grid(model: PreTrainedModel, grids: dict[str, Grids]) -> None:
    """Raise if a linear is not, bit for bit, on the grids that it was rounded to; an adapter beside it may be there.

    Args:
        grids: by name of the linear (`model.Report.grids`); those left out are not looked at.
    """
    import torch

    parts = linears(model)
    for name, own in grids.items():
        weight = parts[name].weight.data
        if not torch.equal(weight, own.dequantize(own.codes(weight).clamp(0, 2**own.bits - 1))):
            raise UserError(f"{name} does not lie on its grids of {own.bits} bits: merged, or never quantized",
                            "put LoRA on the quantized weights, and do not merge")  # fmt: skip


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Fold the adapters into the weights and remove them, in place: only before quantization."""
    for _, _, adapted in _adapted(model):
        adapted.merge()
    return strip(model)


def strip(model: PreTrainedModel) -> PreTrainedModel:
    """Remove the adapters as they are, in place: the weights below are what they were (or what `merge` made them)."""
    for module, name, adapted in _adapted(model):
        setattr(module, name, adapted.get_base_layer())
    if hasattr(model, "peft_config"):  # else PEFT takes the next adapter for a second one
        del model.peft_config
    return model


def _adapted(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "lora_A"):
                yield module, name, child
