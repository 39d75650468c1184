"""The reference model: a LoRA on the aligned LLaVA, warmed up on equally many records of every task; and what its
gradients say about every record of the pool.

One call of `measure` is a whole selection pipeline but for the choice itself: warm-up, gradient pass into a datastore,
task and instance values, scores of the methods that TIVE is compared with. Controls alter the pool before it begins.
"""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.formats.llava import IMAGE_MARK, Turn
from mmlib.models import align, llava
from mmlib.tive import target, values
from mmlib.tive.allocation import warm_up
from mmlib.tive.datastore import model_fingerprint
from mmlib.tive.fill import fill
from mmlib.tive.gradients import core_of, gradient_pass
from mmlib.tive.influence import influence
from mmlib.tive.labels import task_numbers
from mmlib.tive.samples import Features, Sample, cached_features, encode_records
from mmlib.world import benchmarks, knobs, vocabulary
from mmlib.world.scenes import draw_scenes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from transformers import PreTrainedModel

    from mmlib.formats.llava import Record
    from mmlib.tive.datastore import Datastore

logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)  # PEFT looks for it; no study here uses that kernel
# All linear layers of the language model, as LLaVA's own LoRA script; gradients are taken of attention alone.
LINEARS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
Settings = dict[str, Any]  # the section `tive.values` of params.yaml


def measure(shard: dict[str, Any]) -> dict[str, Any]:
    """One reference model and its values of all records, for `engine.shard_map`.

    Args:
        shard: `name`, `stage`, `seed`, `warm_up` (share of the pool), `copies` and `wrong` (shares, of the pool and of
            `wrong_task`), `variants` (further gradient passes), `settings`, `recipe`.
    Returns:
        `ids` and `columns` by record, `seconds` by step, and of every variant `norm` and `influence`.
    """
    import torch

    torch.set_num_threads(1)
    records, wrong = altered_pool(shard)
    pictures = {record.image: target.world_pool()[1][record.image] for record in records if record.image}
    clock, seconds = Clock(), {}
    model, curve = train(records, pictures, shard["settings"], shard["seed"], shard["warm_up"])
    seconds["warm-up"] = clock.lap()
    kit = _kit(model, records, pictures)
    folder = _folder(shard, model)
    how = {"size": shard["settings"]["size"], "rows_per_shard": shard["settings"]["rows_per_shard"]}
    data = fill(folder / "store", model, records, kit["samples"], features=kit["features"], pad=kit["pad"], **how)
    seconds["gradients"] = clock.lap()
    columns = scores(data, records, shard, folder)
    seconds["values"] = clock.lap()
    columns["less"] = less_scores(model, data, kit, shard["settings"], shard["seed"])
    return {"name": shard["name"], "seed": shard["seed"], "curve": curve, "seconds": seconds, "wrong": sorted(wrong),
            "ids": [record.id for record in records], "columns": _rounded(columns),
            "variants": {name: _variant(model, kit, records, options, shard["settings"])
                         for name, options in shard["variants"].items()}}  # fmt: skip


class Clock:
    """Processor seconds of this process between laps."""

    def __init__(self) -> None:
        self.last = time.process_time()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self.last = self.last, time.process_time()
        return round(self.last - before, 2)


def altered_pool(shard: dict[str, Any]) -> tuple[list[Record], set[str]]:
    """The study's part of the pool with the faults that the shard asks for; ids of records with wrong answers."""
    whole = target.world_pool()[0]
    records = [whole[row] for row in target.study_rows(whole, shard["recipe"])]
    if not shard["wrong"]:
        return knobs.with_duplicates(records, shard["copies"], shard["seed"]), set()
    own = [record for record in records if record.dataset == shard["settings"]["wrong_task"]]
    spoilt, wrong = knobs.with_wrong_answers(own, shard["wrong"], shard["seed"])
    by_id = {record.id: record for record in spoilt}
    return [by_id.get(record.id, record) for record in records], wrong


def warm_up_rows(records: list[Record], share: float, seed: int) -> list[int]:
    """Rows of the reference model's training set: equally many of every task, drawn without replacement."""
    import numpy as np

    tasks, names = task_numbers(records)
    quotas, draw = warm_up(np.bincount(tasks, minlength=len(names)), share), random.Random(f"warm-up/{seed}")
    own = [np.flatnonzero(tasks == number).tolist() for number in range(len(names))]
    return sorted(row for rows, quota in zip(own, quotas.tolist(), strict=True) for row in draw.sample(rows, quota))


def train(
    records: list[Record], pictures: Mapping[str, np.ndarray], settings: Settings, seed: int, share: float
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """The reference model (PEFT, in eval mode) and its learning curve; tower and projector stay as they are."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    rank = settings["rank"]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LINEARS, lora_dropout=0.0)
    model = get_peft_model(llava.open_llava(store.project_root() / target.SOURCE), config)
    chosen = [records[row] for row in warm_up_rows(records, share, seed)]
    how = {"steps": settings["warm_up_steps"], "batch": settings["warm_up_batch"],
           "learning_rate": settings["warm_up_learning_rate"], "muon_learning_rate": 0.0}  # fmt: skip
    curve = align.train_stage2(model, vocabulary.build_tokenizer(), chosen, pictures, how, seed)
    return model.eval(), curve


def _kit(model: PreTrainedModel, records: list[Record], pictures: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tokenizer, core = vocabulary.build_tokenizer(), core_of(model)
    return {"samples": encode_records(tokenizer, records, core.config.image_seq_length), "tokenizer": tokenizer,
            "features": cached_features(core, dict(pictures)), "pad": tokenizer.pad_token_id}  # fmt: skip


def _folder(shard: dict[str, Any], model: PreTrainedModel) -> Path:
    """Beside the stage's shards, so that it goes when they go; another shard or model never meets an old store."""
    name = f"store-{store.digest({'shard': shard, 'model': model_fingerprint(model)})[:16]}"
    return store.project_root() / ".scratch" / "shards" / shard["stage"] / name


def scores(data: Datastore, records: list[Record], shard: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """Columns of the store, instance influence within tasks and over all tasks that may be chosen from."""
    import numpy as np

    tasks, names = task_numbers(records)
    columns = {name: data.column(name) for name in data.run.columns}
    ways = {"influence": (tasks, len(names))}
    allowed = ~np.isin(np.array(names)[tasks], shard["settings"]["left_out"])
    ways["influence_all"] = ((~allowed).astype(np.int64), 2)  # one task of all, one of those that are left out
    for name, (numbers, count) in ways.items():
        columns[name] = influence(data.folder, numbers, count, work=folder / name, engine="serial",
                                  stage=f"{shard['stage']}/{folder.name}/{name}")  # fmt: skip
    return columns


def less_scores(
    model: PreTrainedModel, data: Datastore, kit: dict[str, Any], settings: Settings, seed: int
) -> np.ndarray:
    """LESS at the one checkpoint there is; validation tasks are the benchmarks, their items about validation scenes.

    So this method knows what will be asked, wordings included, which no other method does.
    """
    import numpy as np

    asked, features = validation(core_of(model), kit["tokenizer"], settings, seed)
    tasks = {}
    for name, samples in asked.items():
        made = gradient_pass(model, samples, features=features, size=settings["size"], pad=kit["pad"])
        values.require_gradients(made.columns["norm"], [sample.id for sample in samples])
        tasks[name] = made.vectors
    train = np.concatenate([data.vectors(number) for number in range(len(data.run.shards()))])
    return values.less([train], [tasks], [1.0])


def validation(
    core: PreTrainedModel, tokenizer: Any, settings: Settings, seed: int
) -> tuple[dict[str, list[Sample]], Features]:
    """Benchmark items about scenes of the split `val` as samples, by benchmark; and their pictures' features."""
    scenes, count = draw_scenes("val", settings["less_scenes"], seed), core.config.image_seq_length
    built = {b.name: benchmarks.build(b, scenes, settings["less_items"], seed) for b in benchmarks.BENCHMARKS}
    used = {item.scene.id: item.scene for items in built.values() for item in items}
    images = {name: target.world_renderer().render(scene) for name, scene in used.items()}

    def sample(item: Any) -> Sample:
        turns = (Turn("human", f"{IMAGE_MARK}\n{item.text}"), Turn("gpt", item.answer))
        return Sample(item.id, *llava.encode_turns(tokenizer, turns, count), item.scene.id)

    return {name: [sample(item) for item in items] for name, items in built.items()}, cached_features(core, images)


def _variant(
    model: PreTrainedModel, kit: dict[str, Any], records: list[Record], options: dict[str, Any], settings: Settings
) -> dict[str, list[float]]:
    """Norms and instance influence from other layers or another number of projected numbers."""
    tasks, names = task_numbers(records)
    how = {"size": settings["size"], **options}
    made = gradient_pass(model, kit["samples"], features=kit["features"], pad=kit["pad"], **how)
    own = {"norm": made.columns["norm"], "influence": values.instance_influence(made.vectors, tasks, len(names))}
    return _rounded(own)


def _rounded(columns: dict[str, np.ndarray]) -> dict[str, list[float]]:
    return {name: [float(f"{value:.7g}") for value in column.tolist()] for name, column in columns.items()}


def shards(settings: Settings, recipe: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    """Reference models: seeds; other warm-up shares, further passes, and altered pools with the first seed."""
    first, share = settings["reference_seeds"][0], settings["warm_up"]
    make = partial(_shard, settings, recipe, stage)
    variants = {f"size {size}": {"size": size} for size in settings["other_sizes"]}
    variants |= {f"layers {within}": {"within": within} for within in settings["other_layers"]}
    made = [make(f"seed {seed}", seed, share, variants=variants if seed == first else {})
            for seed in settings["reference_seeds"]]  # fmt: skip
    made += [make(f"warm-up {other}", first, other) for other in settings["other_warm_ups"]]
    made += [make(f"wrong {wrong}", first, share, wrong=wrong) for wrong in settings["wrong"]]
    return [*made, make("copies", first, share, copies=settings["copies"])]


def _shard(settings: Settings, recipe: dict[str, Any], stage: str, name: str, seed: int, share: float,
           **more: Any) -> dict[str, Any]:  # fmt: skip
    facts = {"name": name, "stage": stage, "seed": seed, "warm_up": share, "copies": 0.0, "wrong": 0.0, "variants": {}}
    return {**facts, **more, "settings": settings, "recipe": recipe}
