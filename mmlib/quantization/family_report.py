"""Tables of the family report: every model at every width, with what it weighs."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mmlib import tables
from mmlib.quantization import equal_bits
from mmlib.stats import mean_interval

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = Path(__file__).with_name("published_table1.csv")


def stored_bits(results: list[dict[str, Any]]) -> dict[int, float]:
    """Width -> bits that a weight of the block takes (scales, offsets and index counted), mean of the models."""
    by_width: dict[int, list[float]] = {}
    for result in results:
        for bits, arm in result["arms"].items():
            by_width.setdefault(int(bits), []).append(arm["size"]["bits_per_weight"])
    return {bits: sum(values) / len(values) for bits, values in by_width.items()}


def levels(results: list[dict[str, Any]], evidence: dict[str, Any]) -> DataFrame:
    """`tables.levels` with `model` (hidden size), `bits`, and kilobits of the block and of everything stored."""
    frame = tables.levels(evidence)
    frame = frame[frame["arm"].str.startswith("family")]
    stored = {
        f"family{result['width']}-w{bits}": (result["width"], int(bits), arm["size"])
        for result in results
        if not result["early"]
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


def published() -> DataFrame:
    """GSM8K in Table 1 of the paper (camera-ready), percent: model size by bits."""
    import pandas

    wide = pandas.read_csv(PUBLISHED).pivot(index="size", columns="bits", values="gsm8k")
    return wide.loc[sorted(wide.index, key=lambda size: int(size[:-1])), sorted(wide.columns, reverse=True)]


def trials(stored: dict[str, Any]) -> DataFrame:
    """Validation at half of the steps: log-probability of the worked solution, nats, hidden size by learning rate."""
    import pandas

    wide = pandas.DataFrame(stored["trials"]).pivot(index="width", columns="learning_rate", values="cot_logprob")
    return wide.rename_axis(index="hidden size", columns="learning rate").sort_index(ascending=False)


def lengths(stored: dict[str, Any]) -> DataFrame:
    """What the second half of the training brought: best trial (one seed) and members (mean of seeds), validation."""
    import pandas

    rows = []
    for width in sorted({trial["width"] for trial in stored["trials"]}, reverse=True):
        half = max((t for t in stored["trials"] if t["width"] == width), key=lambda trial: trial["cot_logprob"])
        whole = [r for r in stored["results"] if r["width"] == width and not r["early"]]
        row: dict[str, Any] = {"hidden size": width, "steps": whole[0]["steps"]}
        for name, label, scale in (("cot_strict", "chain of thought %", 100), ("cot_logprob", "log p chain", 1)):
            row[f"{label}, half"] = scale * half[name]
            row[f"{label}, all"] = scale * fmean(result["validated"][name] for result in whole)
        rows.append(row)
    return pandas.DataFrame(rows)


def at_equal_bits(
    results: list[dict[str, Any]], evidence: dict[str, Any], widths: list[int], metric: str = "cot_strict"
) -> DataFrame:
    """Mean height of two widths' curves over the sizes that both reach, with 95 % intervals: kilobits, and percent of
    `cot_strict` or nats of `cot_logprob`."""
    import pandas

    members, rows = [result for result in results if not result["early"]], []
    strata = evidence["units"]["problem"]
    scale, unit, digits = (1, "nats", 2) if metric in tables.NATS else (100, "%", 1)
    for counted, label in (("block", "block"), ("total", "with embedding")):
        for one, other in equal_bits.pairs(widths):
            found = equal_bits.compare(members, metric, counted, one, other)
            row = {"counted": label, "kilobits": f"{found['low'] / 1000:.0f} to {found['high'] / 1000:.0f}"}
            heights = [
                mean_interval([scale * v for v in found["scores"][bits].values()], strata) for bits in (one, other)
            ]
            shown = [f"{h.effect:.{digits}f} [{h.low:.{digits}f}, {h.high:.{digits}f}]" for h in heights]
            rows.append({**row, f"4 bits, {unit}": shown[0], "against": f"{other} bits", f"its {unit}": shown[1]})
    return pandas.DataFrame(rows)


def stopped_early(evidence: dict[str, Any]) -> DataFrame:
    """The model that was stopped early, a row per width in bits: scores in percent with 95 % intervals, as text."""
    frame = tables.levels(evidence)
    frame = frame[frame["arm"].str.startswith("early") & ~frame["metric"].str.endswith("logprob")]
    text = [f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in frame.itertuples()]
    bits = [int(arm.rpartition("-w")[2]) for arm in frame["arm"]]
    wide = frame.assign(text=text, bits=bits).pivot(index="bits", columns="metric", values="text")
    names = {"direct_em": "direct %", "cot_strict": "chain of thought, strict %", "cot_flexible": "flexible %"}
    return wide.sort_index(ascending=False)[list(names)].rename(columns=names)


def samples(results: list[dict[str, Any]], early: bool) -> dict[int, list[str]]:
    """Bits -> what the first training seed answered to the first problems: the model stopped early, or the smallest."""
    first = min((r for r in results if r["early"] == early), key=lambda r: (r["width"], r["seed"]))
    return {int(bits): arm["said"] for bits, arm in first["arms"].items()}
