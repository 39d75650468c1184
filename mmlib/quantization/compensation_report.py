"""Tables of the compensation report: ours by order, way and width, and the paper's Tables 4 and 5 beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import tables

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = Path(__file__).with_name("published_finetuning.csv")
WAYS = {
    "base": "no training", "lora-before": "LoRA, then GPTQ", "full-before": "full, then GPTQ",
    "lora-after": "GPTQ, then LoRA", "lora-distilled": "GPTQ, then LoRA, distilled",
}  # fmt: skip


def published() -> DataFrame:
    """Tables 4 and 5 of the paper (camera-ready): percent before and after fine-tuning."""
    import pandas

    return pandas.read_csv(PUBLISHED)


def levels(evidence: dict[str, Any]) -> DataFrame:
    """`tables.levels` with `way` (in words) and `bits`."""
    frame = tables.levels(evidence)
    way, bits = zip(*(arm.rsplit("-w", 1) for arm in frame["arm"]), strict=True)
    return frame.assign(way=[WAYS[each] for each in way], bits=[int(each) for each in bits])


def table(frame: DataFrame, metric: str) -> DataFrame:
    """Bits by way: value with its interval, as text."""
    part = frame[frame["metric"] == metric]
    text = [f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in part.itertuples()]
    wide = part.assign(text=text).pivot(index="bits", columns="way", values="text")
    return wide.sort_index(ascending=False)[[way for way in WAYS.values() if way in wide.columns]].fillna("")


def gains(frame: DataFrame, metric: str) -> DataFrame:
    """Points over no training at the same width: LoRA taught by right answers, and by those of the 16-bit model.

    At 16 bits nothing is rounded, so that LoRA after rounding is LoRA before it.
    """
    import pandas

    wide = frame[frame["metric"] == metric].pivot(index="bits", columns="way", values="value")
    after = wide[WAYS["lora-after"]].fillna(wide[WAYS["lora-before"]].where(wide.index == 16))
    columns = {
        "taught by right answers": after - wide[WAYS["base"]],
        "taught by the 16-bit model": wide[WAYS["lora-distilled"]] - wide[WAYS["base"]],
        "base": wide[WAYS["base"]],
    }
    return pandas.DataFrame(columns).sort_index(ascending=False).round(1)


def validation(stored: dict[str, Any]) -> DataFrame:
    """Exact match on validation problems, percent, mean over seeds: way of tuning by learning rate."""
    import pandas

    rows = pandas.DataFrame(stored["validated"])
    return (100 * rows.pivot_table(index="way", columns="learning_rate", values="solved")).round(1)


def samples(stored: dict[str, Any], arms: list[str]) -> dict[str, list[str]]:
    """What the first training seed of each arm answered to the first problems."""
    said: dict[str, list[str]] = {}
    for result in stored["results"]:
        for arm, answers in result["said"].items():
            said.setdefault(arm, answers)
    return {arm: said[arm] for arm in arms if arm in said}
