"""Clips: whoever ignores the order of frames is right in exactly half of every pair."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.world import clips
from mmlib.world.clips import draw_clips, partner, render_clip


@pytest.mark.parametrize("kind", clips.ANSWERS)
def test_the_reversed_clip_is_the_partner_and_has_the_opposite_answer(kind, renderer):
    for clip in draw_clips(6, 0, kinds=(kind,)):
        other = partner(clip)
        frames, mirrored = render_clip(renderer, clip), render_clip(renderer, other)
        assert np.array_equal(frames[::-1], mirrored)
        assert {clip.answer, other.answer} == set(clips.ANSWERS[kind]) and partner(other) == clip

        def digest(frame):
            return hashlib.sha256(frame.tobytes()).hexdigest()

        assert sorted(map(digest, frames)) == sorted(map(digest, mirrored))


@pytest.mark.parametrize("kind", clips.ANSWERS)
def test_something_moves_and_order_matters(kind, renderer):
    for clip in draw_clips(6, 1, kinds=(kind,)):
        frames = render_clip(renderer, clip)
        assert len({frame.tobytes() for frame in frames}) >= 3
        assert not np.array_equal(frames, frames[::-1])


@pytest.mark.parametrize("kind", clips.ANSWERS)
def test_partners_are_drawn_as_often_as_clips(kind):
    drawn = draw_clips(4000, 0, kinds=(kind,))
    wrapped = [partner(clip) for clip in drawn]
    for field in ("phase", "other"):
        ours = [Counter(getattr(c, field) for c in group if c.answer == clips.ANSWERS[kind][0])
                for group in (drawn, wrapped)]  # fmt: skip
        span = range(max(map(max, ours)) + 1)
        assert max(abs(ours[0][v] - ours[1][v]) for v in span) < 0.06 * 2000


def test_answers_and_kinds_are_balanced_and_seeded():
    drawn = draw_clips(240, 0)
    assert set(Counter(c.answer for c in drawn).values()) == {20}
    assert draw_clips(240, 0) == drawn != draw_clips(240, 1)


def test_an_unknown_motion_is_named():
    with pytest.raises(UserError, match="unknown motion `fly`"):
        draw_clips(1, 0, kinds=("fly",))
