"""Tables of the bit-width report: our levels with intervals, and the paper's Table 1 beside them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import tables
from mmlib.stats import paired_bootstrap

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = Path(__file__).with_name("published_table1.csv")
NULL = "null"  # answers that follow nothing, `instructions.null_answers`
LONGER = "GPTQ, longer windows"  # the ablation
METHODS = {"gptq": "GPTQ", "rtn": "RTN", "bnb-int8": "bitsandbytes", "bnb-nf4": "bitsandbytes", "none": "16-bit"}


def published() -> DataFrame:
    """Table 1 of the paper (camera-ready): model size, bits, scores in percent, WikiText perplexity."""
    import pandas

    return pandas.read_csv(PUBLISHED)


def levels(results: list[dict[str, Any]], evidence: dict[str, Any]) -> DataFrame:
    """`tables.levels` with what each arm is: method, bits, grid, packed bits a weight, megabytes."""
    import pandas

    frame = tables.levels(evidence)
    arms = {result["variant"]["arm"]: result for result in reversed(results)}
    facts = [_facts(arms[arm]) if arm in arms else {"method": NULL} for arm in frame["arm"]]
    return frame.join(pandas.DataFrame(facts))


def _facts(result: dict[str, Any]) -> dict[str, Any]:
    variant = result["variant"]
    grid = "row" if variant["group"] is None else f"group {variant['group']}"
    return {
        "method": METHODS[variant["method"]] if variant["tokens"] is None else LONGER,
        "bits": variant["bits"],
        "grid": grid if variant["method"] in ("gptq", "rtn") else "own",
        "packed_bits": round(result["size"]["bits_per_weight"], 2),
        "megabytes": round(result["size"]["total_bytes"] / 1e6, 1),
    }


def table(frame: DataFrame, shots: int) -> DataFrame:
    """The levels in the layout of Table 1: an arm per row, a measure per column."""
    keys = ["bits", "method", "grid", "packed_bits", "megabytes"]
    frame = frame[~frame["method"].isin([NULL, LONGER])]
    wide = frame.pivot(index=["arm", *keys], columns="metric", values="value").reset_index()
    wide["perplexity"] = wide["nll"].map(math.exp)
    order = [("16-bit", "GPTQ", "RTN", "bitsandbytes").index(m) for m in wide["method"]]
    wide = wide.assign(order=order).sort_values(["bits", "order", "grid"], ascending=[False, True, True])
    names = {
        "icl_em_0shot": "exact 0-shot %", f"icl_em_{shots}shot": f"exact {shots}-shot %",
        "icl_rank_0shot": "rank 0-shot %", f"icl_rank_{shots}shot": f"rank {shots}-shot %",
        "perplexity": "perplexity", "kl": "KL to 16-bit", "top1": "same top-1 %",
    }  # fmt: skip
    return wide[[*keys, *names]].rename(columns={**names, "packed_bits": "packed bits", "megabytes": "MB"})


def by_task(results: list[dict[str, Any]], evidence: dict[str, Any], metric: str) -> DataFrame:
    """Mean of a metric (percent) per arm and task (the unit's id up to the slash: task, kind of instruction)."""
    import numpy
    import pandas

    tasks = [unit.split("/")[0] for unit in evidence["units"][evidence["metrics"][metric]["units"]]]
    rows = {}
    for arm, seeds in evidence["metrics"][metric]["values"].items():
        means = numpy.array(list(seeds.values()), dtype=float).mean(0)
        rows[arm] = {task: 100 * means[[t == task for t in tasks]].mean() for task in sorted(set(tasks))}
    return pandas.DataFrame(rows).T


def samples(results: list[dict[str, Any]], arms: list[str]) -> dict[str, list[str]]:
    """What each arm answered to the fixed prompts (the first calibration seed where there are several)."""
    found = {r["variant"]["arm"]: r["samples"] for r in results if r["samples"] is not None}
    return {arm: found[arm] for arm in arms if arm in found}


def gptq_minus_rtn(evidence: dict[str, Any], metric: str) -> DataFrame:
    """Per width (groups of 64): GPTQ minus RTN on the same units, with its 95 % interval, and which one is better."""
    import numpy
    import pandas

    declared = evidence["metrics"][metric]
    scale = 1 if metric in tables.NATS else 100
    rows = []
    for bits in sorted({int(arm[5]) for arm in declared["values"] if arm.startswith("rtn-w")}, reverse=True):
        gptq, rtn = (declared["values"].get(f"{method}-w{bits}-g64") for method in ("gptq", "rtn"))
        if gptq and rtn:
            (once,) = rtn.values()  # rounding to nearest has no seeds
            table = numpy.array([numpy.subtract(values, once) for values in gptq.values()], dtype=float)
            found = paired_bootstrap(scale * table, evidence["units"][declared["units"]])
            gain = (found.low, found.high) if declared["higher_is_better"] else (-found.high, -found.low)
            better = "GPTQ" if gain[0] > 0 else "RTN" if gain[1] < 0 else "undecided"
            rows.append({"bits": bits, "GPTQ minus RTN [95 %]": _text(found), "better": better})
    return pandas.DataFrame(rows)


def longer(evidence: dict[str, Any], settings: dict[str, Any]) -> DataFrame:
    """Per width and length of a calibration window: KL and log perplexity, and their paired change from the usual one.

    Pairs are the same window of test text and the same calibration seed.
    """
    import numpy
    import pandas

    usual, rows = settings["calibration_tokens"], []
    for bits in settings["longer_widths"]:
        for tokens in (usual, *settings["longer_windows"]):
            row: dict[str, Any] = {"bits": bits, "calibration": f"{settings['calibration_windows']} x {tokens} tokens"}
            for metric, label in (("kl", "KL to 16-bit"), ("nll", "nll")):
                values, strata = evidence["metrics"][metric]["values"], evidence["units"]["text"]
                base = values[f"gptq-w{bits}-g{settings['group']}"]
                mine = base if tokens == usual else values[f"gptq-w{bits}-g{settings['group']}-windows{tokens}"]
                row[label] = f"{numpy.mean(list(mine.values())):.3f}"
                change = [numpy.subtract(mine[seed], base[seed]) for seed in mine]
                row[f"{label}, change [95 %]"] = "" if mine is base else _text(paired_bootstrap(change, strata))
                if metric == "kl":
                    row["KL, minus RTN [95 %]"] = _text(_beyond_rtn(evidence, bits, settings["group"], mine))
            rows.append(row)
    return pandas.DataFrame(rows)


def _beyond_rtn(evidence: dict[str, Any], bits: int, group: int, mine: dict[str, list[float]]) -> Any:
    """KL of an arm minus that of rounding to nearest, window by window."""
    import numpy

    (once,) = evidence["metrics"]["kl"]["values"][f"rtn-w{bits}-g{group}"].values()  # it has no seeds
    return paired_bootstrap([numpy.subtract(values, once) for values in mine.values()], evidence["units"]["text"])


def order_by_calibration(evidence: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Per width a sentence: which rounding is nearer to the 16-bit model, with short and with longer calibration."""
    said = []
    for bits in settings["longer_widths"]:
        for tokens in (settings["calibration_tokens"], *settings["longer_windows"]):
            arm = f"gptq-w{bits}-g{settings['group']}"
            arm = arm if tokens == settings["calibration_tokens"] else f"{arm}-windows{tokens}"
            found = _beyond_rtn(evidence, bits, settings["group"], evidence["metrics"]["kl"]["values"][arm])
            nearer = "GPTQ is" if found.high < 0 else "rounding to nearest is" if found.low > 0 else "neither is surely"
            said.append(f"{bits} bits, windows of {tokens} tokens: {nearer} nearer to the 16-bit model")
    return said


def files(results: list[dict[str, Any]]) -> DataFrame:
    """Every width as a packed checkpoint: bytes as counted, of its tensors, of the file, and equal logits."""
    import pandas

    rows = [
        {"arm": r["variant"]["arm"], "counted bytes": r["size"]["total_bytes"], "bytes of tensors":
         r["file"]["tensor_bytes"], "bytes of the file": r["file"]["file_bytes"],
         "logits after reloading": "equal" if r["file"]["same_logits"] else "NOT equal"}
        for r in results if r["file"] is not None
    ]  # fmt: skip
    return pandas.DataFrame(rows).sort_values("counted bytes", ascending=False)


def _text(found: Any) -> str:
    return f"{found.effect:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"
