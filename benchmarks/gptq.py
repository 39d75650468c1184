"""Seconds of GPTQ on the whole language model, and where they go: `make bench` or `python -m benchmarks.gptq --help`.

Not a test: machines differ. Compare shares, and ratios taken in one run.
"""

from __future__ import annotations

import argparse
import time

from mmlib import store, text


def main() -> None:
    """Print seconds with their shares, and what the quantized model is worth."""
    import torch

    from mmlib.metrics import lm
    from mmlib.models.lm import open_checkpoint
    from mmlib.quantization.bench import CHECKPOINT, TEST_SEED
    from mmlib.quantization.model import Spec, quantize_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=64, help="calibration windows")
    parser.add_argument("--tokens", type=int, default=512, help="tokens a window")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=64, help="0: one grid per row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    root = store.project_root()
    model, tokenizer = open_checkpoint(root / CHECKPOINT)
    documents = text.documents(root, "calibration")
    windows = text.windows(tokenizer, documents, arguments.windows, arguments.tokens, seed=0)
    test = text.windows(tokenizer, text.documents(root, "test"), 16, 80, seed=TEST_SEED)
    reference = lm.log_probabilities(model, test)
    started = time.perf_counter()
    report = quantize_model(model, Spec("gptq", arguments.bits, arguments.group or None), windows)
    total = time.perf_counter() - started
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in sorted(report.seconds.items()))
    print(f"{windows.numel()} tokens, {arguments.bits} bits, {arguments.threads} threads: {total:.1f} s ({shares})")
    after = lm.window_metrics(model, test, reference)
    print(f"held-out text: KL to 16-bit {sum(after['kl']) / 16:.4f}, perplexity {lm.perplexity(after['nll']):.2f}")


if __name__ == "__main__":
    main()
