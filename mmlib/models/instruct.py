"""Instruction tuning (stage 2) of an aligned LLaVA on a pool, and its scores on the world's benchmarks.

One call trains one model; what is trained on (all records, a random part, a selection) is the caller's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.formats.llava import Record
from mmlib.models import align, clip, llava, lookups
from mmlib.world import benchmarks, pool_files, vocabulary
from mmlib.world.benchmarks import Item
from mmlib.world.nouns import CELLS
from mmlib.world.render import Renderer
from mmlib.world.scenes import draw_scenes

if TYPE_CHECKING:
    import numpy as np
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

ANSWER_TOKENS = 11  # a box is the longest answer: four numbers, three commas, two brackets, an end
SHOWN = 6  # answers kept of a run and benchmark


def tune(
    source: Path,
    records: list[Record],
    pictures: Mapping[str, np.ndarray],
    settings: dict[str, Any],
    seed: int,
    renderer: Renderer,
) -> tuple[LlavaForConditionalGeneration, list[dict[str, float]]]:
    """The aligned model in `source`, tuned on the records; and the learning curve."""
    model, tokenizer = llava.open_llava(source), vocabulary.build_tokenizer()
    known = rehearsal(tokenizer, settings["rehearsed"] * settings["batch"], seed, renderer)
    return model, align.train_stage2(model, tokenizer, records, pictures, settings, seed, known)


def rehearsal(tokenizer: PreTrainedTokenizerBase, count: int, seed: int, renderer: Renderer) -> list[align.Known]:
    """Dialogues and dense look-ups of stage 1 in equal parts, on scenes that it did not see."""
    draw, made = random.Random(f"rehearsal/{seed}"), []
    for number, scene in enumerate(draw_scenes("train", count, 2 + seed)):
        row = (lookups.dense_row if number % 2 else lookups.dialogue_row)(tokenizer, scene, draw, len(CELLS))
        made.append((row, renderer.render(scene)))
    return made


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One run of stage 2, for `engine.shard_map`: scores of all benchmarks, the learning curve, some answers."""
    import torch

    torch.set_num_threads(1)  # the last bits must not depend on free cores
    root, settings = store.project_root(), shard["settings"]
    records, pictures = pool_files.open_pool(root / "results/world/pool")
    part = random_part(records, shard["share"], shard["seed"])
    renderer = Renderer(root / "data")
    model, curve = tune(root / "results/world/llava", part, pictures, settings, shard["seed"], renderer)
    built = benchmarks.build_all(settings["test_scenes"], settings["items"], settings["test_seed"])
    said = answers(model, vocabulary.build_tokenizer(), built, renderer)
    return {"share": shard["share"], "seed": shard["seed"], "records": len(part), "curve": curve,
            "scores": scores(said, built), "said": {name: texts[:SHOWN] for name, texts in said.items()}}  # fmt: skip


def answers(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    built: dict[str, list[Item]],
    renderer: Renderer,
) -> dict[str, list[str]]:
    """Greedy answers to every item of every benchmark."""
    said = {}
    for name, part in built.items():
        seen = clip.pixels(renderer.render_all([item.scene for item in part]))
        tokens = ANSWER_TOKENS if benchmarks.by_name_of(name).judge == "box" else 4
        said[name] = llava.answer(model, tokenizer, seen, [item.text for item in part], tokens, batch=200)
    return said


def scores(said: dict[str, list[str]], built: dict[str, list[Item]]) -> dict[str, list[float]]:
    """1 or 0 for every item of every benchmark."""
    scored = {}
    for name, part in built.items():
        benchmark = benchmarks.by_name_of(name)
        scored[name] = [benchmarks.judge(benchmark, text, item) for text, item in zip(said[name], part, strict=True)]
    return scored


def random_part(records: list[Record], share: float, seed: int) -> list[Record]:
    """A drawn share of the records, in their order: the baseline of every selection."""
    if not 0 < share <= 1:
        raise UserError(f"a share of {share} of the pool", "choose above 0 and up to 1")
    chosen = random.Random(f"part/{seed}").sample(range(len(records)), round(share * len(records)))
    return [records[i] for i in sorted(chosen)]
