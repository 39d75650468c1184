"""What was predicted against what came out: the three outcomes, and predictions about nothing."""

from __future__ import annotations

import math

import pytest

from mmlib import survey_llm
from mmlib.errors import UserError
from mmlib.survey_llm import predictions as m

INF = math.inf


@pytest.mark.parametrize(
    ("interval", "predicted", "expected"),
    [
        ((1, 2), (0, INF), "met"), ((1, 2), (3, INF), "missed"), ((1, 4), (3, INF), "open"),
        ((-2, -1), (-INF, 0), "met"), ((-2, -1), (-INF, -3), "missed"), ((-6, 6), (-5, 5), "open"),
        ((1, 2), (-5, 5), "met"), ((math.nan, math.nan), (0, INF), "open"),
    ],
)  # fmt: skip
def test_outcomes(interval, predicted, expected):
    assert m.outcome(*interval, *predicted) == expected


def test_every_experiment_has_predictions_and_each_is_about_something(root):
    found = m.table(root)
    assert set(found["experiment"]) == set(survey_llm.OWN.values())
    assert found[["low", "high"]].notna().any(axis=1).all(), "a prediction without a bound cannot fail"
    assert list(found["outcome"]) == sorted(found["outcome"], key=m.OUTCOMES.index)
    assert m.markdown(found).count("\n") == len(found) + 1


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [("L1-printed", "L1-painted", "card L1-painted"), ("right work", "wright", "arm wright")],
)
def test_a_prediction_about_nothing_is_named(root, tmp_path, monkeypatch, before, after, named):
    path = tmp_path / "predictions.csv"
    path.write_text(m.FILE.read_text().replace(f",{before},", f",{after},"))
    monkeypatch.setattr(m, "FILE", path)
    with pytest.raises(UserError, match=named):
        m.table(root)
