"""A quantized model in one safetensors file: packed integer codes, 16-bit scales, everything else at 16 bits.

`load(save(model))` gives back the same weights bit for bit, and so the same logits, because the model that is saved
holds no other numbers (`stored`). What the file holds is what `size.account` counts; on top comes its header.
The command is `round_and_save`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.quantization.model import linears
from mmlib.quantization.size import pack, unpack
from mmlib.quantization.stored import Grids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

FORMAT = "mmlib-packed-1"
AGAIN = "save the quantized model again (`packed.save`)"


def dump(model: PreTrainedModel, grids: dict[str, Grids]) -> bytes:
    """The file as bytes.

    Args:
        model: quantized; what is not rounded must fit into 16 bits (`stored.at_16_bits`).
        grids: of every rounded linear (`model.Report.grids`).

    Raises:
        UserError: a weight that its grid or 16 bits cannot hold: it changed after rounding, or was never rounded.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for name, value in _parameters(model).items():
        linear = name.removesuffix(".weight")
        tensors |= _linear(linear, value, grids[linear]) if linear in grids else {name: _exact_half(name, value)}
    shapes = {name: [*linears(model)[name].weight.shape, grid.bits] for name, grid in grids.items()}
    about = {"config": model.config.to_dict(), "linears": shapes, "sha256": _digest(tensors)}
    return save(tensors, {"format": FORMAT, "about": json.dumps(about, sort_keys=True)})


def save(model: PreTrainedModel, grids: dict[str, Grids], path: Path | str) -> dict[str, int]:
    """Write `dump` to `path`, whole or not at all; its size in bytes, with and without the header."""
    data = dump(model, grids)
    store.atomic_write(path, data)
    return measured(data)


def measured(data: bytes) -> dict[str, int]:
    """Bytes of the file and of its tensors alone (a safetensors file begins with the length of its header)."""
    return {"file_bytes": len(data), "tensor_bytes": len(data) - 8 - int.from_bytes(data[:8], "little")}


def load(path: Path | str) -> PreTrainedModel:
    """The model that was saved, with the same weights bit for bit, in float32 and eval mode.

    Raises:
        UserError: no such file, or one that is cut short, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing", AGAIN)
    return restore(path.read_bytes(), str(path))


def restore(data: bytes, name: str = "checkpoint") -> PreTrainedModel:
    """`load` from bytes; `name` stands in errors."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors, about = _read(data, name)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**about["config"])).requires_grad_(False)
    weights = _parameters(model)
    plain = {key for key in tensors if key in weights}
    if foreign := weights.keys() ^ {f"{linear}.weight" for linear in about["linears"]} ^ plain:
        raise UserError(f"{name} does not fit its own configuration ({min(foreign)})", AGAIN)
    for key in plain:
        weights[key].copy_(tensors[key])
    for linear, (rows, columns, bits) in about["linears"].items():  # one by one: memory for one model, not for two
        parts = {kind: tensors[f"{linear}.{kind}"] for kind in ("codes", "scale", "zero", "group_of")}
        weights[f"{linear}.weight"].copy_(_weight(parts, (rows, columns), bits))
    return model.eval()


def _read(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{name} is cut short or no safetensors file ({error})", AGAIN) from error
    if header.get("format") != FORMAT:
        raise UserError(f"{name} is no packed checkpoint of format {FORMAT}", "open other models with transformers")
    about = json.loads(header["about"])
    if about["sha256"] != _digest(tensors):
        raise UserError(f"{name} is damaged: its tensors are not those that were saved", AGAIN)
    return tensors, about


def _parameters(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every parameter once: an output layer that is the embedding is left out."""
    return {name: parameter.data for name, parameter in model.named_parameters()}


def _linear(name: str, weight: Tensor, grids: Grids) -> dict[str, Tensor]:
    codes = grids.codes(weight)
    outside = codes.min() < 0 or codes.max() >= 2**grids.bits
    if outside or not grids.dequantize(codes).equal(weight):
        raise UserError(f"{name} does not lie on its grids: it changed after rounding", "save it before training it")
    return {
        f"{name}.codes": _bytes(pack(codes, grids.bits)),
        f"{name}.zero": _bytes(pack(grids.zero, grids.bits)),
        f"{name}.scale": _exact_half(f"{name}.scale", grids.scale),
        f"{name}.group_of": _group_of(grids),
    }


def _group_of(grids: Grids) -> Tensor:
    """Number of the group of every input (int16); nothing where groups are runs of the inputs in their order."""
    import torch

    groups = grids.scale.shape[1]
    plain = torch.arange(len(grids.group_of)) // (len(grids.group_of) // groups)
    return grids.group_of[:0].short() if grids.group_of.equal(plain) else grids.group_of.short()


def _weight(parts: dict[str, Tensor], shape: tuple[int, int], bits: int) -> Tensor:
    import torch

    scale, group_of = parts["scale"].float(), parts["group_of"].long()
    if not len(group_of):
        group_of = torch.arange(shape[1]) // (shape[1] // scale.shape[1])
    codes, zero = (
        unpack(parts[kind].numpy().tobytes(), bits, tuple(size)).float()
        for kind, size in (("codes", shape), ("zero", scale.shape))
    )
    return Grids(scale, zero, group_of, bits).dequantize(codes)


def _exact_half(name: str, value: Tensor) -> Tensor:
    if not value.half().float().equal(value.float()):
        raise UserError(f"{name} does not fit into 16 bits", "round what is not quantized first (`stored.at_16_bits`)")
    return value.half().contiguous()


def _bytes(data: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _digest(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].numpy().tobytes())
    return found.hexdigest()
