"""The two CPU formats of bitsandbytes as baselines: LLM.int8() and NF4, on the same seven linears per block."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.quantization.model import linears

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# On import it reports at length that a faster, optional kernel package is absent.
logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
THRESHOLD = 6.0  # LLM.int8(): inputs with any |x| >= 6 keep full precision (Dettmers et al. 2022)
NF4_BLOCK = 64  # weights per absmax scale


def apply(model: PreTrainedModel, kind: str) -> PreTrainedModel:
    """A model with quantized linears; `model` itself is left as it is.

    Args:
        kind: `int8` runs bitsandbytes' own int8 matrix product, activations included; `nf4` quantizes and
            dequantizes the weights, which is what its 4-bit layer computes.
    """
    if kind not in ("int8", "nf4"):
        raise UserError(f"unknown bitsandbytes format `{kind}`", "use int8 or nf4")
    changed = copy.deepcopy(model)
    for name, linear in linears(changed).items():
        parent, _, child = name.rpartition(".")
        if kind == "int8":
            setattr(changed.get_submodule(parent), child, _int8(linear))
        else:
            linear.weight.data = _nf4(linear)
    return changed


def _int8(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear8bitLt

    layer = Linear8bitLt(
        linear.in_features, linear.out_features, bias=False, has_fp16_weights=False, threshold=THRESHOLD
    )
    layer.load_state_dict({"weight": linear.weight.data})
    return layer.to(linear.weight.device)  # the move is what quantizes


def _nf4(linear: nn.Linear):
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(linear.weight.data, blocksize=NF4_BLOCK, quant_type="nf4")
    return functional.dequantize_4bit(codes, state)
