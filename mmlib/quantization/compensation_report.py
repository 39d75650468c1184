"""Tables of the compensation report: ours by order, way and width, and the paper's Tables 4 and 5 beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import tables
from mmlib.stats import paired_bootstrap

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = Path(__file__).with_name("published_finetuning.csv")
FULL_BITS = 16
TEACHERS = {"lora-after": "right answers", "lora-distilled": "the 16-bit model"}
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
    nats = frame["metric"] == "cot_logprob_gain"  # all other metrics of no name in `tables.NATS` are percent
    frame.loc[nats, ["value", "low", "high"]] /= 100
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
    after = wide[WAYS["lora-after"]].fillna(wide[WAYS["lora-before"]].where(wide.index == FULL_BITS))
    columns = {
        "taught by right answers": after - wide[WAYS["base"]],
        "taught by the 16-bit model": wide[WAYS["lora-distilled"]] - wide[WAYS["base"]],
        "base": wide[WAYS["base"]],
    }
    return pandas.DataFrame(columns).sort_index(ascending=False).round(1)


def recovery(evidence: dict[str, Any], metric: str) -> DataFrame:
    """Per width and teacher: gain on rounded weights, gain of the same recipe at 16 bits, their difference [95 %].

    The gain at 16 bits is a lesson; what exceeds it on rounded weights is a recovery.
    """
    import numpy
    import pandas

    declared = evidence["metrics"][metric]
    values, strata = declared["values"], evidence["units"][declared["units"]]
    scale, digits = (100, 1) if metric == "cot_gain" else (1, 2)
    rows = []
    for arm, control in (("lora-after", "lora-before-w16"), ("lora-distilled", "lora-distilled-w16")):
        widths = sorted((int(name.rpartition("-w")[2]) for name in values if name.startswith(arm)), reverse=True)
        for bits in (bits for bits in widths if bits != FULL_BITS):
            gained, lesson = (
                {seed: scale * numpy.array(row, dtype=float) for seed, row in values[name].items()}
                for name in (f"{arm}-w{bits}", control)
            )
            found = paired_bootstrap([gained[seed] - lesson[seed] for seed in gained], strata)
            means = [f"{numpy.mean(list(each.values())):+.{digits}f}" for each in (gained, lesson)]
            limits = f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
            rows.append({"taught by": TEACHERS[arm], "bits": bits, "gain": means[0], "gain at 16 bits": means[1],
                         "recovery [95 %]": f"{found.effect:+.{digits}f} {limits}"})  # fmt: skip
    return pandas.DataFrame(rows)


def stored_bits(results: list[dict[str, Any]]) -> dict[int, float]:
    """Width -> bits that a weight of the block takes, with scales, offsets and the index of groups."""
    found = next(result["bits_per_weight"] for result in results if "bits_per_weight" in result)
    return {int(bits): stored for bits, stored in found.items()}


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
