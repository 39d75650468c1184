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
    """Points over no training at the same width: LoRA taught by right answers, and by those of the 16-bit model."""
    import pandas

    wide = frame[frame["metric"] == metric].pivot(index="bits", columns="way", values="value")
    lesson, recovery = (wide[WAYS[way]] - wide[WAYS["base"]] for way in ("lora-after", "lora-distilled"))
    columns = {"taught by right answers": lesson, "taught by the 16-bit model": recovery, "base": wide[WAYS["base"]]}
    return pandas.DataFrame(columns).sort_index(ascending=False).round(1)


def validation(stored: dict[str, Any]) -> DataFrame:
    """Exact match on validation problems, percent, mean over seeds: method by learning rate."""
    import pandas

    rows = pandas.DataFrame(stored["validated"])
    return (100 * rows.pivot_table(index="method", columns="learning_rate", values="solved")).round(1)
