"""One seaborn theme and the few figure types that the studies share. Plumbing: draws numbers, never makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from pandas import DataFrame

# Colour-blind safe; an arm keeps its colour in every figure of the project.
PALETTE = {"GPTQ": "#0072B2", "RTN": "#D55E00", "bitsandbytes": "#009E73", "16-bit": "#444444"}
VERDICT_COLOURS = {
    "reproduced": "#1a7f37",
    "consistent-at-reduced-scale": "#1a7f37",
    "direction-only": "#9a6700",
    "not-reproduced": "#cf222e",
    "contradicted": "#82071e",
    "inconclusive": "#6e7781",
    "stale": "#6e7781",
    "not-attempted": "#afb8c1",
}


def theme() -> None:
    """The project's look; call once per notebook."""
    import matplotlib as mpl
    import seaborn as sns

    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    mpl.rcParams.update({"figure.dpi": 110, "savefig.bbox": "tight", "figure.constrained_layout.use": True})
    mpl.rcParams["axes.titlelocation"] = "left"


def curves(ax: Axes, table: DataFrame, *, x: str, y: str, low: str, high: str, by: str, style: str) -> None:
    """Lines with interval bars: one colour per `by`, one dash pattern per `style`.

    Args:
        table: one row per point with columns x, y, low, high, by, style. Points are spread a little along x
            so that bars do not hide one another.
    """
    groups = list(table.groupby([by, style], sort=True))
    patterns = {name: pattern for name, pattern in zip(sorted(table[style].unique()), ("-", "--", ":"), strict=False)}
    for number, ((colour, dash), part) in enumerate(groups):
        part = part.sort_values(x)
        positions = part[x] + (number - (len(groups) - 1) / 2) * 0.06
        bars = [part[y] - part[low], part[high] - part[y]]
        ax.errorbar(positions, part[y], yerr=bars, color=PALETTE.get(colour), linestyle=patterns[dash], marker="o",
                    markersize=4, capsize=3, linewidth=1.6, label=f"{colour}, {dash}")  # fmt: skip


def interval_line(ax: Axes, table: DataFrame, x: str | Sequence[float], **style: Any) -> None:
    """One line with interval bars over the columns `value`, `low`, `high`.

    Args:
        x: a column, along which the rows are sorted, or a position for every row.
        style: of `Axes.errorbar`: color, label, linestyle …
    """
    if isinstance(x, str):
        table = table.sort_values(x)
        x = table[x]
    bars = [table["value"] - table["low"], table["high"] - table["value"]]
    ax.errorbar(x, table["value"], yerr=bars, **{"marker": "o", "markersize": 5, "capsize": 3, **style})


def reference_line(ax: Axes, value: float, label: str) -> None:
    """A horizontal line with its meaning written on it: a baseline or a chance level."""
    ax.axhline(value, color=PALETTE["16-bit"], linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    ax.annotate(label, (0.55, value), xycoords=("axes fraction", "data"), ha="left", va="bottom", fontsize=8)


def forest(ax: Axes, rows: list[dict[str, Any]], linear_to: float | None = None) -> None:
    """Ledger rows: effect with interval, region where the claim holds shaded, published effect as a diamond.

    Args:
        linear_to: beyond this distance from 0 the axis is logarithmic; for effects of very different size.
    """
    left, right = _extent(rows)
    if linear_to:  # room is a factor on a logarithmic axis
        left, right = 1.6 * left, 1.6 * right
    for y, row in enumerate(reversed(rows)):
        colour = VERDICT_COLOURS[row["verdict"]]
        low, high = _region(row, left, right)
        ax.fill_betweenx([y - 0.38, y + 0.38], low, high, color="#2da44e", alpha=0.12, linewidth=0)
        if row["effect"] is not None:
            ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2)
            ax.plot(row["effect"], y, "o", color=colour)
        if row["published"] is not None:
            ax.plot(row["published"]["effect"], y, "D", markersize=6, markerfacecolor="none", color="#444444")
        beside = {"xy": (1.01, y), "xycoords": ("axes fraction", "data")}
        ax.annotate(row["verdict"], va="center", color=colour, fontsize=8, **beside)
    if linear_to:
        ax.set_xscale("symlog", linthresh=linear_to)
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set_xlim(left, right)
    ax.set_yticks(range(len(rows)), [row["id"] for row in reversed(rows)])


def _extent(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """An axis range that shows every effect, interval, margin and published value."""
    values = [0.0]
    for row in rows:
        values += [row[key] for key in ("low", "high") if row[key] is not None]
        values += [-1.5 * row["margin"], 1.5 * row["margin"]]
        values += [row["published"]["effect"]] if row["published"] else []
    room = 0.06 * (max(values) - min(values))
    return min(values) - room, max(values) + room


def _region(row: dict[str, Any], left: float, right: float) -> tuple[float, float]:
    """Where the whole interval must lie for the claim to hold."""
    criterion, margin = row["criterion"], row["margin"]
    if criterion["kind"] == "equivalence":
        return -margin, margin
    return (left, -margin) if criterion["direction"] == "negative" else (margin, right)
