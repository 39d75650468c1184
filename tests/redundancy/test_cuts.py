"""What a cut leaves: the right records, the right number of times, by luck alone; and what is refused."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from mmlib.errors import UserError
from mmlib.redundancy import cuts
from mmlib.redundancy.cuts import Cut
from mmlib.world import benchmarks, pool

LABELS = [label for label in ("llava_instruct", "vqav2", "okvqa", "refcoco", "vg", "ocrvqa") for _ in range(40)]
ROWS = [row for row in range(len(LABELS)) if row % 10]  # the study works on a part of the pool


def of(label, rows=ROWS):
    return [row for row in rows if LABELS[row] == label]


def unowned(groups):
    """Benchmarks of a group that none of its own records asks for, as the pool's kinds say it."""
    asks = {kind.label: set(kind.asks) for kind in pool.KINDS}
    return [
        (group.name, name)
        for group in groups
        for name in group.own
        if not set(benchmarks.by_name_of(name).kinds) <= set().union(*(asks[label] for label in group.labels))
    ]


def test_groups_are_labels_of_the_pool_and_own_what_their_records_ask():
    assert len(cuts.GROUPS) >= 6
    labels = [label for group in cuts.GROUPS for label in group.labels]
    assert len(set(labels)) == len(labels) and set(labels) < pool.LABELS
    assert not unowned(cuts.GROUPS)
    swapped = dataclasses.replace(cuts.group("okvqa"), own=("ocr",))
    assert unowned([swapped]) == [("okvqa", "ocr")], "the check cannot fail"


def test_every_benchmark_that_the_pool_trains_has_one_owner():
    assert Counter(cuts.TRAINED) == Counter(b.name for b in benchmarks.BENCHMARKS if b.trained)


def test_the_full_mixture_is_left_as_it_is():
    assert cuts.remaining(Cut((), 100), ROWS, LABELS, 0) == ROWS
    assert cuts.remaining(Cut(("okvqa",), 100), ROWS, LABELS, 0) == ROWS


@pytest.mark.parametrize("percent", [50, 25, 10, 0])
def test_a_plain_cut_keeps_its_share_of_one_group_and_all_of_the_others(percent):
    left = cuts.remaining(Cut(("grounding",), percent), ROWS, LABELS, 3)
    boxes = [row for row in left if LABELS[row] in ("refcoco", "vg")]
    assert left == sorted(set(left)) and len(boxes) == round(percent / 100 * 72)
    assert [row for row in left if row not in boxes] == [r for r in ROWS if LABELS[r] not in ("refcoco", "vg")]
    assert set(left) <= set(ROWS), "a row outside of the study's part of the pool"


@pytest.mark.parametrize("percent", [50, 25, 10])
def test_a_matched_cut_repeats_the_same_records_to_the_old_count(percent):
    plain = cuts.remaining(Cut(("okvqa",), percent), ROWS, LABELS, 1)
    matched = cuts.remaining(Cut(("okvqa",), percent, matched=True), ROWS, LABELS, 1)
    assert len(matched) == len(ROWS) and set(matched) == set(plain)
    times = Counter(row for row in matched if LABELS[row] == "okvqa")
    assert sum(times.values()) == 36 and max(times.values()) - min(times.values()) <= 1
    assert [LABELS[row] for row in matched] == [LABELS[row] for row in ROWS], "batches are mixed as before"


def test_draws_are_nested_seeded_and_shared_by_the_arms():
    half, quarter = (set(cuts.remaining(Cut(("okvqa",), p), ROWS, LABELS, 0)) & set(of("okvqa")) for p in (50, 25))
    assert quarter < half
    again = set(cuts.remaining(Cut(("okvqa",), 25), ROWS, LABELS, 1)) & set(of("okvqa"))
    assert again != quarter and len(again) == len(quarter)
    several = cuts.remaining(Cut(("okvqa", "ocrvqa"), 25), ROWS, LABELS, 0)
    assert set(several) & set(of("okvqa")) == quarter and len(set(several) & set(of("ocrvqa"))) == 9


def test_every_record_is_kept_about_equally_often():
    kept = Counter(row for seed in range(400) for row in cuts.part(of("vqav2"), Cut(("vqav2",), 25), "vqav2", seed))
    assert len(kept) == 36 and sum(kept.values()) == 400 * 9
    assert all(60 < count < 140 for count in kept.values()), "100 expected, standard deviation under 9"


def test_what_makes_no_sense_is_refused_by_name():
    for cut, message in (
        (Cut(("gqa",), 25), "task group gqa has no record"),
        (Cut(("okvqa",), 0, matched=True), r"cut okvqa-0-matched: 0 % of the records kept, and repeated"),
        (Cut(("okvqa",), 120), "120 % of the records"),
        (Cut(("vqa",), 25), "unknown task group `vqa`"),
    ):
        with pytest.raises(UserError, match=message):
            cuts.remaining(cut, ROWS, LABELS, 0)


def test_the_settings_name_all_cuts_once(settings):
    all_levels = {**settings, "plain_levels": [50, 25, 10, 0], "matched_levels": [50, 25, 10]}
    arms = [cut.arm for cut in cuts.all_cuts(all_levels)]
    assert len(arms) == len(set(arms)) == 1 + 6 * 7 + 2 and arms[0] == "full" and "ocrvqa-10-matched" in arms
    with pytest.raises(UserError, match="`several` names 1 task groups"):
        cuts.all_cuts({**settings, "several": ["okvqa"]})
