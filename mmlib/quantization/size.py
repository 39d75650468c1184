"""What a quantized model weighs: packed storage counted exactly, scales and offsets included.

Per linear: b bits a weight, and per group a 16-bit scale and a b-bit zero point; b + (16 + b) / g bits a weight.
With act-order and several groups, each input column also needs the number of its group (16 bits a column and linear).
Embedding, norms and output layer stay at 16 bits. `packed` writes files of exactly this size, but for their header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from mmlib.quantization.model import Spec

FULL_BITS = 16
SCALE_BITS = 16
INDEX_BITS = 16
BNB_ROW_SCALE_BITS = 32  # bitsandbytes keeps its absmax scales as float32


def packed_bits(linear: nn.Linear, bits: int, group: int | None, indexed: bool) -> int:
    """Storage of one linear in bits on an asymmetric grid."""
    size = group or linear.in_features
    grids = linear.out_features * (linear.in_features // size)
    index = INDEX_BITS * linear.in_features if indexed and size < linear.in_features else 0  # one group needs none
    return linear.in_features * linear.out_features * bits + grids * (SCALE_BITS + bits) + index


def account(
    model: PreTrainedModel, method: str, bits: int, spec: Spec | None = None, bit_map: dict[str, int] | None = None
) -> dict[str, Any]:
    """Bytes of the blocks' linears and of everything else, and effective bits per quantized weight.

    Args:
        model: the 16-bit model (only shapes are read).
        method: `none`, `rtn`, `gptq`, `bnb-int8` (one scale a row) or `bnb-nf4` (one scale per 64 weights).
        spec: needed for rtn and gptq.
        bit_map: as for `model.quantize_model`.
    """
    from mmlib.quantization import bitmap
    from mmlib.quantization.bnb import NF4_BLOCK
    from mmlib.quantization.model import linears

    named = linears(model)
    parts = named.values()
    weights = sum(p.in_features * p.out_features for p in parts)
    if method == "none":
        stored = weights * bits
    elif method == "bnb-int8":
        stored = weights * bits + sum(p.out_features for p in parts) * BNB_ROW_SCALE_BITS
    elif method == "bnb-nf4":
        stored = weights * bits + weights // NF4_BLOCK * BNB_ROW_SCALE_BITS
    else:
        widths = bitmap.resolve(bit_map or {}, list(named), spec.bits)
        stored = sum(_stored(part, method, widths[name], spec) for name, part in named.items())
    rest = 16 * (sum(p.numel() for p in model.parameters()) - weights)
    return {
        "bits_per_weight": round(stored / weights, 6),
        "block_bytes": stored // 8,
        "other_bytes": rest // 8,
        "total_bytes": (stored + rest) // 8,
    }


def _stored(linear: nn.Linear, method: str, bits: int, spec: Spec) -> int:
    if bits == FULL_BITS:
        return bits * linear.weight.numel()
    return packed_bits(linear, bits, spec.group, method == "gptq" and spec.act_order and spec.group is not None)


def pack(codes: Tensor, bits: int) -> bytes:
    """Integer codes 0 … 2^bits - 1 as a dense little-endian bit string."""
    import numpy

    flat = codes.reshape(-1).to("cpu").numpy().astype("uint8")
    return numpy.packbits(
        numpy.unpackbits(flat[:, None], axis=1, bitorder="little")[:, :bits], bitorder="little"
    ).tobytes()


def unpack(data: bytes, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The codes that `pack` stored, as an int64 tensor of `shape`."""
    import math

    import numpy
    import torch

    count = math.prod(shape)
    stream = numpy.unpackbits(numpy.frombuffer(data, dtype="uint8"), bitorder="little")[: count * bits]
    codes = numpy.packbits(stream.reshape(count, bits), axis=1, bitorder="little")[:, 0]
    return torch.from_numpy(codes.astype("int64")).reshape(shape)
