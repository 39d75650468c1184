"""Tables of the outliers report: every case with its arms, the outliers that were found, and the paper's Fig. 3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import tables

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = Path(__file__).with_name("published_fig3.csv")
ARMS = {"non-outlier": "no outlier", "random3": "three others", "top1": "the first", "top3": "the first three"}


def published() -> DataFrame:
    """Fig. 3 of the paper, read off the figure: scores in percent, perplexity."""
    import pandas

    return pandas.read_csv(PUBLISHED)


def levels(evidence: dict[str, Any]) -> DataFrame:
    """`tables.levels` of the arms with outliers, with `scale`, `case` (sites and threshold) and `arm` apart."""
    frame = tables.levels(evidence)
    frame = frame[frame["arm"].str.count("-") >= 2]
    parts = frame["arm"].str.split("-", n=2, expand=True)
    return frame.assign(scale=parts[0], case=parts[1], arm=parts[2]).reset_index(drop=True)


def table(frame: DataFrame, metric: str) -> DataFrame:
    """Scale and case by what is rounded as well: value with its interval, as text."""
    digits = 3 if metric in tables.NATS else 1
    part = frame[frame["metric"] == metric]
    text = [f"{r.value:.{digits}f} [{r.low:.{digits}f}, {r.high:.{digits}f}]" for r in part.itertuples()]
    wide = part.assign(text=text).pivot(index=["scale", "case"], columns="arm", values="text")
    return wide[[arm for arm in ARMS if arm in wide]].rename(columns=ARMS).fillna("").reset_index()


def found(results: list[dict[str, Any]]) -> DataFrame:
    """Outliers of every case and draw of calibration text: how many, and the first three."""
    import pandas

    rows = [
        {"case": each["case"], "draw": result["seed"], "outliers": each["outliers"],
         "first three": "; ".join(f"{t['site']} {t['dim']}, {t['layers']} layers, {t['largest']:g}"
                                  for t in each["top"])}
        for result in results
        for each in result["found"]
    ]  # fmt: skip
    return pandas.DataFrame(rows).sort_values(["case", "draw"])


def samples(results: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Arm -> answers to the fixed prompts: the 16-bit model, everything in INT8, the key cases with their arms."""
    said = {arm: scores["said"] for result in results for arm, scores in result["arms"].items() if "said" in scores}
    return {arm: said[arm] for arm in sorted(said, key=lambda arm: (arm.count("-"), arm))}
