"""A target: the aligned LLaVA tuned on chosen rows of the world's pool, and its scores on the world's benchmarks.

What `tive` (rows that a method selected) and `redundancy` (rows that are left of a task) have in common. All arms of a
study take the same steps: fewer rows are seen more often. Some steps rehearse stage 1, as everywhere in stage 2.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.models import clip, instruct
from mmlib.models.llava import encode_turns
from mmlib.world import benchmarks, pool, pool_files, vocabulary
from mmlib.world.nouns import CELLS
from mmlib.world.render import Renderer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from mmlib.formats.llava import Record
    from mmlib.world.benchmarks import Item

POOL, SOURCE = "results/world/pool", "results/world/llava"
Recipe = dict[str, Any]  # the section `tive.recipe` of params.yaml


def study_rows(records: list[Record], recipe: Recipe) -> list[int]:
    """Rows of the part of the pool that the studies work on, in order: the same share of every kind of record.

    Raises:
        UserError: a share that is not above 0 and up to 1.
    """
    share, by_kind = recipe["pool_share"], defaultdict(list)
    if not 0 < share <= 1:
        raise UserError(f"a share of {share} of the pool", "choose above 0 and up to 1")
    for row, record in enumerate(records):
        by_kind[pool.kind_of(record)].append(row)
    draw = random.Random(f"study/{recipe['pool_seed']}")
    kept = [draw.sample(rows, max(1, round(share * len(rows)))) for _, rows in sorted(by_kind.items())]
    return sorted(row for rows in kept for row in rows)


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One target, for `engine.shard_map`: scores of all benchmarks, learning curve, and what it has seen.

    Args:
        shard: `name`, `seed`, `rows` (numbers in the whole pool; twice means twice as often) and `recipe`.
    Raises:
        UserError: no rows, or a row that the pool does not have.
    """
    return {key: value for key, value in timed(shard).items() if key != "seconds"}


def timed(shard: dict[str, Any]) -> dict[str, Any]:
    """`evaluate` and the processor `seconds` of training, which differ from run to run."""
    import torch

    torch.set_num_threads(1)  # the last bits must not depend on free cores
    recipe, seed = shard["recipe"], shard["seed"]
    records, pictures = world_pool()
    chosen = _chosen(records, shard["rows"])
    start = time.process_time()
    model, curve = instruct.tune(store.project_root() / SOURCE, chosen, pictures, recipe, seed, world_renderer())
    seconds = time.process_time() - start
    built = tests(recipe["test_scenes"], recipe["items"], recipe["test_seed"])
    said = instruct.answers(model, vocabulary.build_tokenizer(), built, world_renderer())
    return {"name": shard["name"], "seed": seed, "curve": curve, "scores": instruct.scores(said, built),
            "said": {name: texts[: instruct.SHOWN] for name, texts in said.items()},
            "seen": seen(chosen, recipe, seed), "seconds": round(seconds, 2)}  # fmt: skip


def _chosen(records: list[Record], rows: list[int]) -> list[Record]:
    """In pool order: what a run gives depends on which rows are in it, not on how they were listed."""
    if not rows or not 0 <= min(rows) <= max(rows) < len(records):
        raise UserError(f"{len(rows)} rows of a pool of {len(records)} records", "give rows of this pool")
    return [records[row] for row in sorted(rows)]


@cache  # once in a process, not once in a run
def world_pool() -> tuple[list[Record], Mapping[str, np.ndarray]]:
    """Records and pictures of the whole pool."""
    return pool_files.open_pool(store.project_root() / POOL)


@cache
def world_renderer() -> Renderer:
    """Draws scenes."""
    return Renderer(store.project_root() / "data")


@cache
def tests(test_scenes: int, items: int, test_seed: int) -> dict[str, list[Item]]:
    """The items of every benchmark by its name."""
    return benchmarks.build_all(test_scenes, items, test_seed)


def chances(recipe: Recipe) -> dict[str, float]:
    """What is reached on each benchmark without looking where the question points."""
    built = tests(recipe["test_scenes"], recipe["items"], recipe["test_seed"])
    return {name: benchmarks.chance(benchmarks.by_name_of(name), items) for name, items in built.items()}


def seen(records: list[Record], recipe: Recipe, seed: int) -> dict[str, int]:
    """What a run over these records sees besides rehearsals: `samples` in all; different ones; tokens; pictures.

    `tokens` and `answers` (tokens with a loss) count repeats, `unique` and `images` do not.
    """
    tokenizer, count = vocabulary.build_tokenizer(), (recipe["steps"] - recipe["rehearsed"]) * recipe["batch"]
    rows = [encode_turns(tokenizer, record.turns, len(CELLS)) for record in records]
    order = clip.epochs(len(records), count, seed)  # as `align.train_stage2` draws it
    used = [records[i] for i in set(order)]
    return {"samples": count, "records": len(records), "unique": len({r.id for r in used}),
            "tokens": sum(len(rows[i][0]) for i in order),
            "answers": sum(label >= 0 for i in order for label in rows[i][1]),
            "images": len({r.image for r in used if r.image})}  # fmt: skip
