"""Gradients of a pool into a datastore, shard by shard: killed anywhere, it goes on with the missing ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError
from mmlib.tive.datastore import Datastore, Run, model_fingerprint, pool_fingerprint
from mmlib.tive.gradients import COLUMNS, gradient_pass
from mmlib.tive.samples import Features, Sample, check
from mmlib.tive.values import require_gradients

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mmlib.formats.llava import Record

# Not part of a store's fingerprint: how samples are batched moves nothing beyond float rounding.
FREE = ("tokens",)


def fill(
    folder: Path | str,
    model: PreTrainedModel,
    records: list[Record],
    samples: list[Sample],
    *,
    size: int,
    rows_per_shard: int = 4096,
    features: Features | None = None,
    numbers: Iterable[int] | None = None,
    **options: Any,
) -> Datastore:
    """Write the missing shards of a store of all records' projected gradients.

    Args:
        samples: the records, encoded, in the same order.
        numbers: shards to make, for several processes that share the work; None: all that are missing.
        options: of `gradient_pass` (seed, loss, within, outside, tokens, pad).
    Raises:
        UserError: samples that are not the records', a store of another pool, model or recipe, or NaN or zero
            gradients, by the names of the records.
    """
    check(samples)
    if [s.id for s in samples] != [r.id for r in records]:
        raise UserError(f"{len(samples)} samples are not the {len(records)} records in order", "encode this pool")
    recipe = {"seed": 0, "loss": "mean", **{key: value for key, value in options.items() if key not in FREE}}
    run = Run(pool_fingerprint(records), model_fingerprint(model), len(records), size, rows_per_shard, COLUMNS,
              {key: list(v) if isinstance(v, tuple) else v for key, v in recipe.items()})  # fmt: skip
    data = Datastore(folder, run)
    for number in _progress(data.todo() if numbers is None else sorted(set(data.todo()) & set(numbers))):
        part = samples[slice(*run.shards()[number])]
        made = gradient_pass(model, part, features=features, size=size, **options)
        require_gradients(made.columns["norm"], [sample.id for sample in part])
        data.write(number, made.vectors, made.columns)
    return data


def _progress(numbers: list[int]) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(numbers, desc="gradients", unit="shard", smoothing=0, disable=len(numbers) < 2)
