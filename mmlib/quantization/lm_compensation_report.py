"""Tables of the report on fine-tuning the packaged language model: levels, gains, recoveries, the paper's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib import tables
from mmlib.quantization.compensation_report import WAYS, published
from mmlib.stats import paired_bootstrap

if TYPE_CHECKING:
    from pandas import DataFrame

FULL_BITS = 16
SHOWN = {"exact": (100, "points", 1), "logprob": (1, "nats an answer", 2), "answer": (1, "nats a token", 2),
         "nll": (1, "nats a token", 2), "kl": (1, "nats a token", 2)}  # fmt: skip


def shown(metric: str) -> tuple[int, str, int]:
    """(factor, unit, digits) in which a metric is shown; shares become points."""
    return SHOWN[metric.partition("_")[0]]


def levels(evidence: dict[str, Any]) -> DataFrame:
    """`tables.levels` with `way` (in words) and `bits`; percent for exact match, nats for all else."""
    frame = tables.levels(evidence)
    nats = [
        shown(metric)[0] == 1 and metric not in tables.NATS for metric in frame["metric"]
    ]  # it took these for shares
    frame.loc[nats, ["value", "low", "high"]] /= 100
    way, bits = zip(*(arm.rsplit("-w", 1) for arm in frame["arm"]), strict=True)
    return frame.assign(way=[WAYS[each] for each in way], bits=[int(each) for each in bits])


def table(frame: DataFrame, metric: str) -> DataFrame:
    """Way by bits: value with its interval, as text."""
    part, digits = frame[frame["metric"] == metric], shown(metric)[2]
    text = [f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]" for row in part.itertuples()]
    wide = part.assign(text=text).pivot(index="way", columns="bits", values="text")
    wide = wide.loc[[way for way in WAYS.values() if way in wide.index], sorted(wide.columns, reverse=True)]
    return wide.fillna("").rename_axis(index=None, columns="bits")


def recovery(evidence: dict[str, Any], metrics: dict[str, str]) -> DataFrame:
    """Per metric and width: gain of LoRA on rounded weights, gain of the same LoRA at 16 bits, the difference [95 %].

    The gain at 16 bits is a lesson; what exceeds it on rounded weights is a recovery. Signs are such that more is
    better.

    Args:
        metrics: metric -> how the table calls it.
    """
    import numpy
    import pandas

    rows = []
    for metric, label in metrics.items():
        declared, (scale, unit, digits) = evidence["metrics"][f"{metric}_gain"], shown(metric)
        sign = scale if declared["higher_is_better"] else -scale
        gained = {arm: {seed: sign * numpy.array(row, dtype=float) for seed, row in seeds.items()}
                  for arm, seeds in declared["values"].items()}  # fmt: skip
        lesson, strata = gained[f"lora-before-w{FULL_BITS}"], evidence["units"][declared["units"]]
        for arm in sorted((arm for arm in gained if arm.startswith("lora-after")), key=lambda arm: -_bits(arm)):
            found = paired_bootstrap([gained[arm][seed] - lesson[seed] for seed in lesson], strata)
            means = [f"{numpy.mean(list(each.values())):+.{digits}f}" for each in (gained[arm], lesson)]
            text = f"{found.effect:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
            row = {"measure": f"{label}, {unit}", "bits": _bits(arm), "gain": means[0], "gain at 16 bits": means[1]}
            rows.append(row | {"recovery [95 %]": text})
    return pandas.DataFrame(rows)


def _bits(arm: str) -> int:
    return int(arm.rpartition("-w")[2])


def beside(frame: DataFrame, shots: int) -> DataFrame:
    """The paper's MMLU rows and ours in one table, percent: no training, LoRA then GPTQ, GPTQ then LoRA."""
    import pandas

    paper = published()
    paper = paper[paper["test"].str.startswith("MMLU")].assign(subject="LLaMA-" + paper["size"])
    merged = paper.groupby(["subject", "test", "bits"], sort=False)[["base", "lora_before", "lora_after"]].first()
    rows = []
    for count in (0, shots):
        part = frame[frame["metric"] == f"exact_{count}shot"].pivot(index="bits", columns="way", values="value")
        for bits in sorted(part.index, reverse=True):
            row = {name: part.loc[bits].get(WAYS[way]) for name, way in
                   (("base", "base"), ("lora_before", "lora-before"), ("lora_after", "lora-after"))}  # fmt: skip
            rows.append({"subject": "SmolLM2-135M, ours", "test": f"tasks {count}-shot", "bits": bits, **row})
    names = {name: WAYS[way] for name, way in (("base", "base"), ("lora_before", "lora-before"),
                                               ("lora_after", "lora-after"))}  # fmt: skip
    return pandas.concat([pandas.DataFrame(rows), merged.reset_index()]).rename(columns=names)


def validation(stored: dict[str, Any]) -> DataFrame:
    """Nats per token of validation texts: bits by learning rate."""
    import pandas

    rows = pandas.DataFrame(stored["validated"])
    return rows.pivot(index="bits", columns="learning_rate", values="nll").sort_index(ascending=False)


def said(stored: dict[str, Any]) -> dict[str, list[str]]:
    """Arm in words -> its answers to the prompts of the reports, first seed; 16 bits first, then by width."""
    found = {arm: answers for result in stored["results"] for arm, answers in result["said"].items()}
    ways = list(WAYS)
    order = sorted(found, key=lambda arm: (-_bits(arm), ways.index(arm.rpartition("-w")[0])))
    names = WAYS | {f"lora-before-w{FULL_BITS}": "LoRA"}  # nothing was rounded after it
    return {f"{_bits(arm)} bits, {names.get(arm, names[arm.rpartition('-w')[0]])}": found[arm] for arm in order}
