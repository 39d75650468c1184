"""Tables of the components report: every kept set with its size, its scores and what a kept weight buys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import tables

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = Path(__file__).with_name("published_fig2.csv")
KEPT_BITS = 16
WHOLE = ("none", "attention", "ffn", "crucial")


def published() -> DataFrame:
    """Fig. 2 and 4 of the paper at 2 bits, read off the figures: scores in percent, to about half a point."""
    import pandas

    return pandas.read_csv(PUBLISHED, dtype={"perplexity": str})


def levels(results: list[dict[str, Any]], evidence: dict[str, Any]) -> DataFrame:
    """`tables.levels` with `bits`, `set` and `kept` (percent of the rounded weights kept at 16 bits, mean of seeds)."""
    frame = tables.levels(evidence)
    kept: dict[str, list[float]] = {}
    for result in results:
        for arm, scores in result["arms"].items():
            if "kept" in scores:
                kept.setdefault(f"w{result['bits']}-{arm}", []).append(100 * scores["kept"] / result["weights"])
    bits, names = zip(*(_split(arm) for arm in frame["arm"]), strict=True)
    shares = [sum(kept[arm]) / len(kept[arm]) if arm in kept else 100.0 for arm in frame["arm"]]
    return frame.assign(bits=bits, set=names, kept=shares)


def _split(arm: str) -> tuple[int, str]:
    """`w2-ffn-sample` -> (2, `ffn-sample`); the reference -> (16, `all`)."""
    if not arm.startswith("w"):
        return 16, "all"
    width, name = arm[1:].split("-", 1)
    return int(width), name


def widths(frame: DataFrame) -> list[int]:
    """The rounded widths, ascending."""
    return sorted(set(frame["bits"]) - {16})


def samples(results: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Variant -> answers to the fixed prompts: the 16-bit model, then the paper's kept sets, higher widths first."""
    found: dict[str, list[str]] = {}
    for result in sorted(results, key=lambda result: -result["bits"]):
        for arm, scores in result["arms"].items():
            if scores["said"] is not None:
                name = arm if result["bits"] == KEPT_BITS else f"{result['bits']} bits, kept: {arm}"
                found.setdefault(name, scores["said"])
    return found


def table(frame: DataFrame, shots: int) -> DataFrame:
    """A row per width and kept set, largest set first."""
    wide = frame.pivot(index=["bits", "set", "kept"], columns="metric", values="value").reset_index()
    nothing = wide[wide["set"] == "none"].set_index("bits")["kl"]
    saved = wide["bits"].map(nothing) - wide["kl"]
    wide["saved"] = (saved / wide["kept"]).where(wide["set"].ne("none") & wide["bits"].ne(16))
    wide = wide.sort_values(["bits", "kept"], ascending=[False, False])
    names = {
        "bits": "bits of the rest", "set": "kept at 16 bits", "kept": "kept %", "nll": "nll", "kl": "KL to 16-bit",
        "top1": "same top-1 %", f"icl_em_{shots}shot": f"exact {shots}-shot %", "saved": "KL saved per kept %",
    }  # fmt: skip
    return wide[list(names)].rename(columns=names)
