"""Speed of JADE's cached generation beside the plain loops: `python -m benchmarks.jade_generation --help`.

A generator with random weights (they do not change the work), pictures with six boxes, a question of every type about
each, greedy, from fixed prompts, every text of the same length (the end is not taken), so that the work is equal. Three
ways: cached and batched (pictures encoded once per box, keys and values kept); plain, batched (picture and prefix
encoded again at every token); plain, one question at a time. All must say the same; the clock is processor time of one
thread. The plain loops take the first of the questions only, since they are slow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

TOKENS = 6  # of a question with its end, as they are in this world


def build(pictures: int, seed: int) -> dict[str, Any]:
    """Model, pictures, boxes and prompts."""
    import torch

    from mmlib import store
    from mmlib.jade import corpora, detect, generate
    from mmlib.jade.batches import Maker, padded
    from mmlib.jade.model import Jade, Shape, regions
    from mmlib.jade.tokens import Words, build_tokenizer, first_word
    from mmlib.models.clip import build_clip, pixels
    from mmlib.world.render import Renderer

    words, scenes = Words(), corpora.draw_part("web", pictures, seed)
    maker = Maker(words, Shape())
    model = Jade(build_clip(build_tokenizer(), 128, 3, 21, seed), len(words), words.pad, Shape(), seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # larger weights than initial ones: the texts must differ, or equal ones prove nothing
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.bias[: first_word()] -= 10
        model.bias[words.pad] = float("-inf")
    images = corpora.pictures(Renderer(store.project_root() / "data"), scenes, corpora.Clutter())
    boxes = [(i, detect.plate_box(cell, (0, 0))) for i in range(pictures) for cell in range(generate.BOXES)]
    prompts = [maker.pair_prompt(kind, box, "large dog on red") for _, box in boxes for kind in generate.ASKED]
    owner = torch.tensor([i for i, _ in boxes])
    return {"model": model, "words": words, "pixels": pixels(images), "owner": owner, "asked": len(generate.ASKED),
            "region": regions([box for _, box in boxes], 72), "prompts": padded(prompts, words.pad)}  # fmt: skip


def cached(kit: dict[str, Any]) -> list[list[int]]:
    """All questions, with cache, every box seen once."""
    import torch

    from mmlib.jade.decoding import decode, picture_keys

    model, words = kit["model"], kit["words"]
    with torch.inference_mode():
        patches = model.look.patches(kit["pixels"])[kit["owner"]]
        seen = picture_keys(model, model.see(patches, kit["region"]))
    said = decode(model, words, seen, kit["prompts"], end=words.answer, most=TOKENS).ids
    return [ids[: ids.index(words.sep)] if words.sep in ids else ids for ids in said]


def plain(kit: dict[str, Any], rows: range, batch: int) -> list[list[int]]:
    """Questions `rows`, everything encoded again at every token."""
    from mmlib.jade.plain import greedy

    said = []
    for start in range(rows.start, rows.stop, batch):
        part = list(range(start, min(start + batch, rows.stop)))
        boxes = [row // kit["asked"] for row in part]
        said += greedy(kit["model"], kit["words"], kit["pixels"][kit["owner"][boxes]], kit["region"][boxes],
                       kit["prompts"][part], end=kit["words"].answer, most=TOKENS)  # fmt: skip
    return said


def measure(kit: dict[str, Any], singles: int, batched: int, rounds: int) -> list[dict[str, float]]:
    """Seconds per question of the three ways in each round, and the share of texts that are equal."""
    ways = {"cached": (lambda: cached(kit), len(kit["prompts"])),
            "batched": (lambda: plain(kit, range(batched), batched), batched),
            "single": (lambda: plain(kit, range(singles), 1), singles)}  # fmt: skip
    results = []
    for _ in range(rounds):
        row, said = {}, {}
        for name, (run, count) in ways.items():
            start = time.process_time()
            said[name] = run()
            row[name] = (time.process_time() - start) / count
        pairs = [(a, b) for name in ("batched", "single") for a, b in zip(said[name], said["cached"], strict=False)]
        row["equal"] = sum(a == b for a, b in pairs) / len(pairs)
        row["different texts"] = len({tuple(ids) for ids in said["cached"]})
        row["tokens"] = statistics.fmean(len(ids) for ids in said["cached"])
        results.append(row)
    return results


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--singles", type=int, default=60)
    parser.add_argument("--batched", type=int, default=216)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(build(options.pictures, 0), options.singles, options.batched, options.rounds)
    for row in rows:
        print({name: round(value, 6) for name, value in row.items()}, flush=True)
    for name in ("batched", "single"):
        ratios = [row[name] / row["cached"] for row in rows]
        print(f"{name} / cached: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    print(f"questions per second, cached: {1 / statistics.median(row['cached'] for row in rows):.0f}")
    if any(row["equal"] < 1 for row in rows):
        raise SystemExit("the ways disagree")


if __name__ == "__main__":
    main()
