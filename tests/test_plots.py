"""Figures show what the ledger says: region, interval and published value are where they belong."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import pytest
from matplotlib import pyplot as plt

from mmlib import plots, verdicts

ROW = {"id": "C1", "verdict": "not-reproduced", "effect": -4.0, "low": -6.0, "high": -2.0, "margin": 3.0,
       "published": {"effect": -1.0, "label": "x"}, "criterion": {"kind": "equivalence", "margin": 3.0}}  # fmt: skip


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_every_verdict_has_a_colour():
    assert plots.VERDICT_COLOURS.keys() == verdicts.VERDICTS.keys()


def test_forest_draws_interval_effect_and_published_inside_the_axis(ax):
    difference = {**ROW, "id": "C2", "criterion": {"kind": "difference", "direction": "negative", "margin": 3.0}}
    empty = {**ROW, "id": "C3", "effect": None, "low": None, "high": None, "published": None, "verdict": "stale"}
    plots.forest(ax, [ROW, difference, empty])
    drawn = [list(line.get_xdata()) for line in ax.lines]
    assert drawn.count([-6.0, -2.0]) == 2 and drawn.count([-4.0]) == 2 and drawn.count([-1.0]) == 2
    left, right = ax.get_xlim()
    assert left < -6 and right > 3
    assert [label.get_text() for label in ax.get_yticklabels()] == ["C3", "C2", "C1"]


@pytest.mark.parametrize(
    ("criterion", "region"),
    [
        ({"kind": "equivalence"}, (-3.0, 3.0)),
        ({"kind": "difference", "direction": "negative"}, (-9.0, -3.0)),
        ({"kind": "difference", "direction": "positive"}, (3.0, 9.0)),
    ],
)
def test_the_shaded_region_is_where_the_claim_holds(criterion, region):
    assert plots._region({"margin": 3.0, "criterion": criterion}, -9.0, 9.0) == region


def test_curves_draw_every_point_with_its_interval(ax):
    import pandas

    rows = [{"x": b, "y": 10 * b, "low": 10 * b - 1, "high": 10 * b + 2, "by": m, "style": s}
            for b in (2, 4) for m in ("GPTQ", "RTN") for s in ("row", "group 64")]  # fmt: skip
    plots.curves(ax, pandas.DataFrame(rows), x="x", y="y", low="low", high="high", by="by", style="style")
    assert len(ax.containers) == 4
    line = ax.containers[0].lines[0]
    assert list(line.get_ydata()) == [20, 40] and line.get_color() == plots.PALETTE["GPTQ"]


def test_an_interval_line_sorts_along_a_column_or_takes_positions(ax):
    import pandas

    table = pandas.DataFrame({"bits": [4, 2], "value": [40.0, 20.0], "low": [39.0, 18.0], "high": [43.0, 21.0]})
    plots.interval_line(ax, table, "bits", color="red")
    plots.interval_line(ax, table, [0.1, 0.2])
    first, second = (container.lines[0] for container in ax.containers)
    assert list(first.get_xdata()) == [2, 4] and list(first.get_ydata()) == [20, 40] and first.get_color() == "red"
    assert list(second.get_xdata()) == [0.1, 0.2] and list(second.get_ydata()) == [40, 20]
    ends = [segment[:, 1].tolist() for segment in ax.containers[0].lines[2][0].get_segments()]
    assert ends == [[18.0, 21.0], [39.0, 43.0]]
