"""Pictures of the redundancy report. They draw what `report` made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib import plots
from mmlib.redundancy import cuts, report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

COLOURS = {"plain": "#D55E00", "exposure-matched": "#0072B2"}


def pruning(ax: Axes, curve: DataFrame, full: list[float], title: str) -> None:
    """One group's pruning curves with intervals, and the band between its worst and best run on everything.

    Args:
        full: own benchmarks' mean of every run on the full mixture, in points.
    """
    levels = sorted(curve["percent"].unique(), reverse=True)
    ax.axhspan(min(full), max(full), color="#444444", alpha=0.15, linewidth=0, label=f"{len(full)} full runs")
    for shift, (way, colour) in zip((-0.06, 0.06), COLOURS.items(), strict=True):
        part = curve[curve["way"] == way].sort_values("percent", ascending=False)
        at = [levels.index(percent) + shift for percent in part["percent"]]
        plots.interval_line(ax, part, at, color=colour, label=way)
    ax.set_xticks(range(len(levels)), [f"{level} %" for level in levels])
    ax.set(xlabel="records kept", ylim=(-3, 103), xlim=(-0.3, len(levels) - 0.7))
    ax.set_title(title, fontsize=9)


def heat(ax: Axes, table: DataFrame, beyond: DataFrame, title: str) -> None:
    """Group by benchmark, points against the full mixture; own benchmarks framed, changes within noise grey."""
    import seaborn as sns
    from matplotlib.patches import Rectangle

    texts = table.map(lambda value: f"{value:+.0f}")
    sns.heatmap(table, ax=ax, cmap="RdBu", center=0, vmin=-30, vmax=30, annot=texts, fmt="", linewidths=0.5,
                annot_kws={"fontsize": 8}, cbar_kws={"label": "points against full", "shrink": 0.8})  # fmt: skip
    for number, text in enumerate(ax.texts):
        row, column = divmod(number, table.shape[1])
        if not beyond.iloc[row, column]:
            text.set_color("#999999")
        elif abs(table.iloc[row, column]) < 20:
            text.set(weight="bold", color="#000000")
    for row, name in enumerate(table.index):
        for own in cuts.group(name).own:
            ax.add_patch(Rectangle((list(table.columns).index(own), row), 1, 1, fill=False, linewidth=2))
    ax.set(title=title, xlabel="", ylabel="")
    ax.tick_params(axis="x", rotation=45)
    ax.tick_params(axis="y", rotation=0)


def side_by_side(ax: Axes, changes: DataFrame, percent: int, groups: list[str]) -> None:
    """Change of own benchmarks at one level, plain beside exposure-matched, with paired intervals."""
    for shift, (way, colour) in zip((-0.13, 0.13), COLOURS.items(), strict=True):
        part = changes[(changes["percent"] == percent) & (changes["way"] == way)].set_index("group").loc[groups]
        plots.interval_line(ax, part.reset_index(), [i + shift for i in range(len(groups))], color=colour, label=way,
                            linestyle="")  # fmt: skip
    ax.axhline(0, color="#444444", linewidth=1)
    ax.set_xticks(range(len(groups)), groups)
    ax.set_ylabel("own benchmarks, points against full\n(95 %, paired by seed and item)")
    ax.legend(fontsize=8)


def own_and_mean(ax: Axes, table: DataFrame) -> None:
    """For every group and way a line from the change of the mean (ring) to that of its own benchmarks (dot)."""
    names: list[Any] = list(dict.fromkeys(table["group"]))
    for row in table.itertuples():
        y = names.index(row.group) + (-0.13 if row.way == report.WAYS[False] else 0.13)
        colour = COLOURS[row.way]
        ax.plot([row.mean, row.own], [y, y], color=colour, linewidth=1.2)
        ax.plot(row.own, y, "o", color=colour, label=f"own, {row.way}" if row.group == names[0] else None)
        ax.plot(row.mean, y, "o", color=colour, markerfacecolor="white",
                label=f"mean, {row.way}" if row.group == names[0] else None)  # fmt: skip
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlabel("points against full")
    ax.legend(fontsize=8)
