"""Tables of reports, recomputed by hand."""

from __future__ import annotations

import pytest

from mmlib import tables


def evidence():
    values = {"a": {"0": [1, 0, 1, 1], "1": [1, 1, 1, 1]}, "b": {"-": [0, 0, 0, 1]}}
    return {
        "units": {"icl": ["x/1", "x/2", "y/1", "y/2"], "text": ["window/0"]},
        "metrics": {
            "em": {"units": "icl", "values": values},
            "nll": {"units": "text", "values": {"a": {"-": [2.5]}}},
        },
    }


def test_levels_are_means_over_units_and_seeds_in_percent_or_nats():
    table = tables.levels(evidence()).set_index(["metric", "arm"])
    assert table.loc[("em", "a"), "value"] == pytest.approx(100 * 7 / 8)
    assert table.loc[("em", "b"), "value"] == pytest.approx(25.0)
    assert table.loc[("nll", "a"), "value"] == 2.5
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    assert (table.loc[("em", "a"), "n"], table.loc[("em", "a"), "seeds"]) == (4, 2)


def test_claims_show_both_effects_and_leave_blank_what_is_unknown():
    row = {
        "id": "C1", "subject": "A model", "statement": "S.", "published": {"effect": -1.5, "label": "T1"},
        "effect": 2.0, "low": 1.0, "high": 3.25, "verdict": "contradicted", "reason": "r",
    }  # fmt: skip
    text = tables.claims([row, {**row, "id": "C2", "published": None, "effect": None}])
    assert "| C1 | A model | S. | -1.5 (T1) | +2 [+1, +3.25] | **contradicted**: r |" in text
    assert "| C2 | A model | S. |  |  | **contradicted**: r |" in text


def test_the_summary_holds_every_arm_and_metric_rounded():
    levels = tables.levels(evidence())
    summary = tables.summary(levels)
    assert summary["a"]["nll"]["value"] == 2.5 and summary["a"]["em"]["value"] == 87.5
    assert {(arm, metric) for arm in summary for metric in summary[arm]} == set(
        zip(levels["arm"], levels["metric"], strict=True)
    )
