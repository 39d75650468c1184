"""Round the language model of the pipeline by a map of bits of your own, and save it as a packed checkpoint.

python -m mmlib.quantization.round_and_save 4 small.safetensors --map '*.down_proj=8' --map 'model.layers.0.*=16'
"""

from __future__ import annotations

import argparse

from mmlib import store
from mmlib.errors import UserError
from mmlib.quantization import bench, bitmap, packed, size, stored
from mmlib.quantization.model import Spec, quantize_model


def round_and_save(path: str, spec: Spec, bit_map: dict[str, int], windows: int, tokens: int) -> list[str]:
    """Round the language model of the pipeline, save it, load it again: what it weighs, and whether logits are equal.

    Raises:
        UserError: no language model yet, or a bit map that names no linear; nothing is written then.
    """
    import torch

    from mmlib.models.lm import open_checkpoint

    root = store.project_root()
    subject, tokenizer = open_checkpoint(root / bench.CHECKPOINT)
    stored.at_16_bits(subject)
    drawn = {"calibration_windows": windows, "calibration_tokens": tokens}
    calibration = bench.calibration_windows(tokenizer, drawn, 0, root)
    report = quantize_model(subject, spec, calibration, bit_map)
    counted, found = (
        size.account(subject, spec.method, spec.bits, spec, bit_map),
        packed.save(subject, report.grids, path),
    )
    with torch.inference_mode():
        equal = torch.equal(subject(calibration[:1]).logits, packed.load(path)(calibration[:1]).logits)
    return [
        f"{counted['bits_per_weight']:.3f} bits per weight of the blocks, scales and offsets included",
        f"counted {counted['total_bytes']} bytes, tensors {found['tensor_bytes']}, file {found['file_bytes']}",
        f"logits after reloading are {'equal' if equal else 'NOT equal'}, bit for bit",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Print `round_and_save` for the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m mmlib.quantization.round_and_save", description=__doc__.split("\n")[0]
    )
    parser.add_argument("bits", type=int, help="of every linear that no --map names")
    parser.add_argument("path", help="where the file goes")
    parser.add_argument("--map", action="append", default=[], metavar="PATTERN=BITS", help="16 keeps a linear")
    parser.add_argument("--method", choices=("gptq", "rtn"), default="gptq")
    for name, default in (("group", 64), ("windows", 64), ("tokens", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args(arguments)
    spec = Spec(asked.method, asked.bits, asked.group or None)
    print("\n".join(round_and_save(asked.path, spec, bitmap.parse(asked.map), asked.windows, asked.tokens)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
