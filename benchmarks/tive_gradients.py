"""Seconds of per-sample gradients beside a plain backward pass and a batch-1 loop.

`python -m benchmarks.tive_gradients --help`.

On the tiny LLaVA of the emoji world (random weights: they do not change the work) and records of its pool, LoRA on the
attention of the language model. Every round runs all routes one after the other; ratios are taken within a round, and
their median over rounds is shown with the range.

From pictures, everything included:
* plain: batches as transformers does them (tower, mask, all logits), LoRA gradients summed over the batch;
* per sample: features of every picture made once, then `gradient_pass` with norms and projection;
* loop: one record at a time as the released code does, tower included, the whole gradient made and multiplied by a
  dense matrix of random signs (D x k, kept in memory).
With picture features at hand, and only what answers need computed (the floor is `plain, short`):
* plain, short · per sample, short (projected) · whole, short (not projected) · loop, short (our factored projection).

With one thread the clock is processor time, which a busy machine disturbs less; with more it is time passed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from mmlib import store

SETTINGS = {"width": 128, "layers": 4}
DATA = store.project_root() / "data"


def build(records: int, rank: int, seed: int) -> dict[str, Any]:
    """Model under PEFT, samples, pictures and the projection's factors."""
    import torch
    from peft import LoraConfig, get_peft_model

    from mmlib.models import align, clip, llava
    from mmlib.tive import samples
    from mmlib.world import pool, vocabulary
    from mmlib.world.render import Renderer
    from mmlib.world.scenes import draw_scenes

    tokenizer, scenes = vocabulary.build_tokenizer(), draw_scenes("train", records, seed)
    model = llava.build_llava(clip.build_clip(tokenizer, 128, 3, 21, seed), tokenizer, SETTINGS, seed).eval()
    names = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)).eval()
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    chosen = pool.build(scenes, records, seed)
    images = align.images_of(chosen, scenes, Renderer(DATA))
    core = model.get_base_model()
    return {
        "model": model, "core": core, "pad": tokenizer.pad_token_id, "images": images,
        "samples": samples.encode_records(tokenizer, chosen, core.config.image_seq_length),
        "features": samples.cached_features(core, images),
    }  # fmt: skip


def plain(kit: dict[str, Any], tokens: int, short: bool) -> None:
    """Forward and backward of all samples, LoRA gradients summed over the batch."""
    from mmlib.tive.samples import buckets

    for rows in buckets(kit["samples"], tokens):
        _mean_losses(kit, rows, short).sum().backward()
        kit["core"].zero_grad()


def _mean_losses(kit: dict[str, Any], rows: list[int], short: bool) -> Any:
    """(N,) of the samples `rows`."""
    import torch

    from mmlib.tive.answers import answer_logits
    from mmlib.tive.samples import collate

    batch = collate(kit["samples"], rows, kit["pad"])
    logits, targets, owners = (answer_logits(kit["core"], batch, kit["features"]) if short
                               else _as_transformers(kit["core"], batch, kit["images"]))  # fmt: skip
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    counts = torch.bincount(owners, minlength=len(rows))
    return torch.zeros(len(rows)).index_add(0, owners, losses / counts[owners])


def _as_transformers(core: Any, batch: Any, images: dict[str, Any]) -> tuple[Any, Any, Any]:
    import numpy as np

    from mmlib.models.clip import pixels
    from mmlib.tive.samples import IGNORED

    seen = {"pixel_values": pixels(np.stack([images[n] for n in batch.images]))} if batch.images else {}
    out = core(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, **seen).logits
    owners, at = (batch.labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    return out[owners, at], batch.labels[:, 1:][owners, at], owners


def loop(kit: dict[str, Any], size: int, count: int, dense: Any = None) -> None:
    """One record, its whole gradient as one vector, its norm, its projection (by `dense`, (D, k), if given)."""
    import torch

    from mmlib.tive.lora import find_layers
    from mmlib.tive.projection import draw_projection

    layers = find_layers(kit["model"])
    projection = draw_projection(layers, size, 0)
    weights = [w.weight for layer in layers for w in (layer.module.lora_A["default"], layer.module.lora_B["default"])]
    for row in range(0, len(kit["samples"]), max(1, len(kit["samples"]) // count)):
        gradients = torch.autograd.grad(_mean_losses(kit, [row], dense is None)[0], weights)
        vector = torch.cat([g.flatten() for g in gradients])
        vector.norm()
        _ = vector @ dense if dense is not None else _project(vector, layers, projection)


def _project(vector: Any, layers: list[Any], projection: Any) -> Any:
    total, start = 0, 0
    for layer, columns, rotations in zip(layers, projection.columns, projection.rotations, strict=True):
        for side in (0, 1):
            d = layer.widths[side]
            part = vector[start : start + layer.rank * d]
            part = part.view(layer.rank, d) if side == 0 else part.view(d, layer.rank).T
            total, start = total + rotations[side] @ (part @ columns[side]), start + layer.rank * d
    return total


def main() -> None:
    """Print seconds per 1,000 records and ratios, with the environment."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--size", type=int, default=1024, help="numbers of a projected gradient")
    parser.add_argument("--tokens", type=int, default=4096, help="padded tokens of a batch")
    parser.add_argument("--loop", type=int, default=200, help="records of the batch-1 loop (every n-th one)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kit = build(arguments.records, arguments.rank, 0)
    few = {**kit, "samples": kit["samples"][:: max(1, len(kit["samples"]) // 20)]}
    for run, _ in routes(few, arguments).values():  # warm up
        run()
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    report(measure(routes(kit, arguments), arguments.rounds, clock), len(kit["samples"]), arguments)


def routes(kit: dict[str, Any], arguments: Any) -> dict[str, tuple[Any, int]]:
    """What is measured, and on how many records."""
    from mmlib.tive.gradients import gradient_pass
    from mmlib.tive.samples import cached_features

    tokens, n, size = arguments.tokens, len(kit["samples"]), arguments.size
    looped, dense = len(range(0, n, max(1, n // arguments.loop))), signs(kit["model"], size)

    def passed(size: int | None, features: Any = None) -> None:
        features = features or cached_features(kit["core"], kit["images"])
        gradient_pass(kit["model"], kit["samples"], features=features, tokens=tokens, pad=kit["pad"], size=size)

    return {
        "plain": (lambda: plain(kit, tokens, False), n),
        "per sample": (lambda: passed(size), n),
        "loop": (lambda: loop(kit, size, arguments.loop, dense), looped),
        "plain, short": (lambda: plain(kit, tokens, True), n),
        "per sample, short": (lambda: passed(size, kit["features"]), n),
        "whole, short": (lambda: passed(None, kit["features"]), n),
        "loop, short": (lambda: loop(kit, size, arguments.loop), looped),
    }


def signs(model: Any, size: int) -> Any:
    """A dense Rademacher matrix (D, size)."""
    import torch

    from mmlib.tive.lora import find_layers

    width = sum(layer.rank * sum(layer.widths) for layer in find_layers(model))
    return torch.randint(0, 2, (width, size), generator=torch.Generator().manual_seed(0)).float() * 2 - 1


def measure(routes: dict[str, Any], rounds: int, clock: Any) -> dict[str, list[float]]:
    """Seconds of the clock per 1,000 records by route, one number a round."""
    kept: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(rounds):
        for name, (run, count) in routes.items():
            started = clock()
            run()
            kept[name].append(1000 * (clock() - started) / count)
    return kept


def report(kept: dict[str, list[float]], records: int, arguments: Any) -> None:
    """Medians, and ratios within rounds."""
    import torch
    import transformers

    clock = "processor time" if arguments.threads == 1 else "time passed"
    print(f"{_processor()}, {os.cpu_count()} cores, {arguments.threads} threads ({clock})")
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}; {records} records, rank {arguments.rank}"
    )
    print(f"k = {arguments.size}, {arguments.tokens} tokens a batch, {arguments.rounds} rounds")
    heads = ("x plain", "x plain, short", "loop /", "loop, short /")
    print(f"{'route':24} {'s per 1,000':>12} " + " ".join(f"{head:>18}" for head in heads))
    for name, seconds in kept.items():
        pairs = [(seconds, kept[other]) for other in ("plain", "plain, short")]
        pairs += [(kept[other], seconds) for other in ("loop", "loop, short")]
        print(f"{name:24} {statistics.median(seconds):12.3f} " + " ".join(f"{_ratio(*pair):>18}" for pair in pairs))


def _ratio(above: list[float], below: list[float]) -> str:
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
