"""A training step of the video model with adapters beside one without: `python -m benchmarks.vlab_step --help`.

Nothing is cached: every step embeds the pixels and passes all blocks, CLIP trains along (`--policy none`), and captions
and questions go through the multimodal encoder, so that both models do all the work that the study spares itself. (With
a frozen CLIP and no adapter there is no backward pass through the encoder at all, and a ratio would compare that.) Arms
take turns within a round; the ratio is the median over rounds, and the clock is processor time of one thread.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

ARMS = ("none", "mlp", "tconv", "st3d", "tattn", "aim")
NOUNS = 12


def build(arms: list[str], batch: int, policy: str) -> dict[str, Any]:
    """Models and one batch of clips with captions and questions (drawn pixels: their content changes no work)."""
    import torch

    from mmlib.vlab import clip_base, language
    from mmlib.vlab.batches import Sequences, clip_texts, collate_texts
    from mmlib.vlab.data import draw_pairs
    from mmlib.vlab.model import RATIOS, Arm, Vlab

    words = language.build_tokenizer(NOUNS)
    clip = clip_base.build_clip(words, 64, 3, 18, 0)
    models = {name: Vlab(clip, Arm(name, (1, 2), freeze=policy), words.pad_token_id, 0).train() for name in arms}
    pairs, draw = draw_pairs("train", batch // 2, NOUNS, 0), random.Random(0)
    texts = [clip_texts(pairs[item], draw, 2) for item in range(batch)]
    texts = collate_texts(Sequences(words, 0.8), texts, 0, RATIOS, draw)
    pixels = torch.randn(batch, 8, 3, 72, 72, generator=torch.Generator().manual_seed(0))
    return {"models": models, "texts": texts, "pixels": pixels}


def step(model: Any, kit: dict[str, Any]) -> float:
    """Processor seconds of a forward and a backward pass."""
    start = time.process_time()
    model.zero_grad()
    tokens = model.video(model.video.embed(kit["pixels"]))  # (B, T, N + 1, D)
    model(**kit["texts"], video=tokens)["loss"].backward()
    return time.process_time() - start


def measure(kit: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, after one that is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in kit["models"]}
    for number in range(rounds + 1):
        for name, model in kit["models"].items():
            took = step(model, kit)
            if number:
                seconds[name].append(took)
    return seconds


def main() -> None:
    """Print milliseconds and the ratio to the model without adapters."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--policy", default="none", choices=("none", "all_but_adapter"), help="what is frozen")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    seconds = measure(build(["none", *(a for a in asked.arms if a != "none")], asked.batch, asked.policy), asked.rounds)
    for name, took in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(took, seconds["none"], strict=True))
        print(f"{name:6s} {1000 * statistics.median(took):7.1f} ms a step, {ratio:.2f} times the step without adapters")


if __name__ == "__main__":
    main()
