"""Reports: verdicts in words, levels with intervals, and a live run that left the band."""

from __future__ import annotations

import pytest

from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.survey_llm import reading
from mmlib.verdicts import VERDICTS


def test_every_verdict_has_words():
    assert reading.WORDS.keys() == VERDICTS.keys()
    assert reading.WORDS["contradicted"] != reading.WORDS["reproduced"]


def test_a_live_value_outside_of_the_band_is_an_error():
    assert "0.5 live, stored 0.4 to 0.6 (2 runs)" in reading.check_band("x", 0.5, [0.4, 0.6], 0.0)
    with pytest.raises(UserError, match=r"x is 0\.7 live"):
        reading.check_band("x", 0.7, [0.4, 0.6], 0.05)


def test_levels_cover_units_and_seeds():
    evidence = Evidence("s", "s-x")
    evidence.units("u", [f"u/{i}" for i in range(30)], asked=30)
    evidence.metric("m", units="u", higher_is_better=True, floor=None)
    for seed in (0, 1, 2):
        evidence.add("m", arm="a", seed=seed, values=[float(i % 2) for i in range(30)])
    (row,) = reading.levels(evidence.as_dict(), "m", scale=100).to_dict("records")
    assert row["value"] == 50 and row["low"] < 50 < row["high"] and (row["n"], row["seeds"]) == (30, 3)


def test_ledger_rows_are_this_study_s(root):
    found = reading.rows(root, "L")
    assert all(row["study"] == "survey_llm" for row in found)
    assert reading.verdicts(found).count("\n") == len(found) + 1


def test_what_was_predicted_is_the_comment_above_a_group_s_first_card(root):
    text = reading.predicted(root, "L4-direct")
    assert "parity" in text and "L4-direct" not in text and "#" not in text
    for card in ("L4-scratchpad", "L9-no-such"):
        with pytest.raises(UserError, match=r"has no card .* below a comment"):
            reading.predicted(root, card)


def test_remarks_made_later_do_not_pass_for_predictions(root):
    parity = reading.predicted(root, "L4-direct")
    before, _, later = parity.partition("**Added later:**")
    assert before.startswith("**Written before the run:**") and "near 50 %" in before and "reviewer" not in before
    assert "reviewer" in later and "LATER" not in parity
    known = reading.predicted(root, "L2-size-mmlu")
    assert known.startswith("**Known before, not predicted:**") and "Written before" not in known
    assert "**Added later:**" not in reading.predicted(root, "L8-lora")
