"""Tables of the family report: every model at every width, with what it weighs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib import tables

if TYPE_CHECKING:
    from pandas import DataFrame


def levels(results: list[dict[str, Any]], evidence: dict[str, Any]) -> DataFrame:
    """`tables.levels` with `model` (hidden size), `bits`, and kilobits of the block and of everything stored."""
    frame = tables.levels(evidence)
    stored = {
        f"family{result['width']}-w{bits}": (result["width"], int(bits), arm["size"])
        for result in results
        for bits, arm in result["arms"].items()
    }
    model, bits, size = zip(*(stored[arm] for arm in frame["arm"]), strict=True)
    block = [8 * each["block_bytes"] / 1000 for each in size]
    return frame.assign(model=model, bits=bits, block=block, total=[8 * each["total_bytes"] / 1000 for each in size])


def table(frame: DataFrame) -> DataFrame:
    """A row per model and width; scores in percent, log-probabilities in nats."""
    keys = ["model", "bits", "block", "total"]
    wide = frame.pivot(index=keys, columns="metric", values="value").reset_index()
    names = {
        "model": "hidden size", "bits": "bits", "block": "block kbit", "total": "with embedding kbit",
        "direct_em": "direct %", "cot_strict": "chain of thought, strict %", "cot_flexible": "flexible %",
        "direct_logprob": "log p direct", "cot_logprob": "log p chain",
    }  # fmt: skip
    return wide.sort_values(["model", "bits"], ascending=False)[list(names)].rename(columns=names)


def samples(results: list[dict[str, Any]], model: int) -> dict[int, list[str]]:
    """Bits -> what the first training seed of a model answered to the first problems."""
    first = next(result for result in results if result["width"] == model)
    return {int(bits): arm["said"] for bits, arm in first["arms"].items()}
