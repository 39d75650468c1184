"""Our GPTQ beside GPTQModel: perplexity and time in one run, on the same text and weights.

Settings are paper-like: asymmetric grids in groups, act-order, damping 0.01; all arithmetic in float32.

GPTQModel pins another NumPy and PyTorch, so it lives in an environment of its own:

    python -m venv .venv-gptqmodel && .venv-gptqmodel/bin/pip install gptqmodel==7.7.0
    python -m benchmarks.gptqmodel --other .venv-gptqmodel/bin/python

Not a test: machines differ, ratios of one run do not (much). GPTQModel's seconds include packing the weights; ours
leaves them dequantized.

Measured with GPTQModel 7.7.0, 4 bits, groups of 64 (perplexity at 16 bits: 19.75):

| calibration | threads each | perplexity ours | GPTQModel | ratio | seconds ours | GPTQModel | ratio |
|---|---|---|---|---|---|---|---|
| 64 x 32 tokens | 2 | 22.23 | 22.49 | 0.989 | 12.0 | 100.0 | 0.12 |
| 64 x 512 tokens, another process beside | 1 | 22.47 | 22.58 | 0.995 | 104.7 | 352.6 | 0.30 |

Measured on 2026-11-25, when our scales were still float32. Since then both store them in half precision
(`mmlib/quantization/stored.py`); the table waits for a new run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHECKPOINT = "results/lm/checkpoint"
DAMPING = 0.01
# GPTQModel's own default of one worker per two cores is too few for its loader on a machine of two.
# Its torch backend would be compiled for evaluation, once a layer, which takes longer than evaluating.
ENVIRONMENT = {
    "PYTHONPATH": ".", "CUDA_VISIBLE_DEVICES": "", "GPTQMODEL_CPU_WORKERS": "2", "TORCHDYNAMO_DISABLE": "1",
}  # fmt: skip


def main() -> None:
    """Run both, each in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", default=".venv-gptqmodel/bin/python", help="Python that has gptqmodel")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--windows", type=int, default=64, help="calibration windows")
    parser.add_argument("--tokens", type=int, default=512, help="tokens a window")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=("ours", "other"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        found = (_ours if arguments.worker == "ours" else _other)(arguments, Path(arguments.folder))
        (Path(arguments.folder) / f"{arguments.worker}.json").write_text(json.dumps(found))
        return
    if not Path(arguments.other).is_file():
        raise SystemExit(f"{arguments.other} is missing; make the environment: see --help")
    _compare(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _windows(arguments, Path(folder))
        found = {}
        for worker, python in (("ours", sys.executable), ("other", arguments.other)):
            command = [python, "-m", "benchmarks.gptqmodel", *sys.argv[1:], "--worker", worker, "--folder", folder]
            subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT})
            found[worker] = json.loads((Path(folder) / f"{worker}.json").read_text())
    ours, other = found["ours"], found["other"]
    print(f"{arguments.bits} bits, groups of {arguments.group}, {arguments.windows} x {arguments.tokens} tokens, "
          f"{arguments.threads} threads")  # fmt: skip
    print(f"perplexity  16-bit {ours['before']:.3f}   ours {ours['after']:.3f}   GPTQModel {other['after']:.3f}   "
          f"ratio {ours['after'] / other['after']:.4f}")  # fmt: skip
    print(f"seconds     ours {ours['seconds']:.1f}   GPTQModel {other['seconds']:.1f}   "
          f"ratio {ours['seconds'] / other['seconds']:.2f}")  # fmt: skip


def _windows(arguments: argparse.Namespace, folder: Path) -> None:
    """Calibration and test windows as JSON, so that both processes read the same tokens."""
    from mmlib import store, text
    from mmlib.models.lm import open_checkpoint
    from mmlib.quantization.bench import TEST_SEED

    root = store.project_root()
    _, tokenizer = open_checkpoint(root / CHECKPOINT)
    documents = text.documents(root, "calibration")
    calibration = text.windows(tokenizer, documents, arguments.windows, arguments.tokens, seed=0)
    test = text.windows(tokenizer, text.documents(root, "test"), 64, 128, seed=TEST_SEED)
    (folder / "windows.json").write_text(json.dumps({"calibration": calibration.tolist(), "test": test.tolist()}))


def _read(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    stored = json.loads((folder / "windows.json").read_text())
    return stored["calibration"], stored["test"]


def _perplexity(model: Any, rows: list[list[int]]) -> float:
    """exp of the mean cross-entropy over all predicted tokens; plain, so that it runs in both environments."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row])
            logits = model(ids).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    return math.exp(total / sum(len(row) - 1 for row in rows))


def _ours(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    import torch

    from mmlib.models.lm import open_checkpoint
    from mmlib.quantization.model import Spec, quantize_model

    torch.set_num_threads(arguments.threads)
    model, _ = open_checkpoint(CHECKPOINT)
    calibration, test = _read(folder)
    before = _perplexity(model, test)
    started = time.perf_counter()
    quantize_model(model, Spec("gptq", arguments.bits, arguments.group, True, DAMPING), torch.tensor(calibration))
    return {"before": before, "seconds": time.perf_counter() - started, "after": _perplexity(model, test)}


def _other(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    torch.set_num_threads(arguments.threads)
    calibration, test = _read(folder)
    how = QuantizeConfig(bits=arguments.bits, group_size=arguments.group, sym=False, desc_act=True,
                         act_group_aware=False, damp_percent=DAMPING, device="cpu")  # fmt: skip
    model = GPTQModel.load(CHECKPOINT, how, dtype=torch.float32)
    rows = [{"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row))} for row in calibration]
    started = time.perf_counter()
    model.quantize(rows, batch_size=1)
    seconds = time.perf_counter() - started
    model.save(str(folder / "quantized"))
    again = GPTQModel.load(str(folder / "quantized"), device="cpu", backend=BACKEND.TORCH)
    return {"seconds": seconds, "after": _perplexity(_in_float32(again.model), test)}


def _in_float32(packed: Any) -> Any:
    """The 16-bit model in float32 with the packed linears' weights: the packed kernels know half precision only."""
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    replaced = 0
    for name, module in packed.named_modules():
        if hasattr(module, "dequantize_weight"):
            weight = module.dequantize_weight().T.float()  # stored (in, out)
            plain.get_submodule(name).weight.data.copy_(weight)
            replaced += 1
    assert replaced == 7 * len(plain.model.layers), f"{replaced} linears were packed"
    return plain


if __name__ == "__main__":
    main()
