"""Captions, questions and splits: opposite answers for reversed clips, nothing of a test in training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.vlab import data, language, tasks
from mmlib.vlab.data import draw_pairs
from mmlib.vlab.frames import segments
from mmlib.world.clips import ANSWERS, draw_clips, partner, render_clip

CLIPS = draw_clips(60, 0)


def test_only_motion_and_joint_change_when_frames_are_reversed():
    for clip in CLIPS:
        for name, template in language.QUESTIONS.items():
            if clip.kind in template.kinds:
                (_, answer), (_, other) = (language.ask(c, name, 0) for c in (clip, partner(clip)))
                assert (answer == other) == (template.family == "static"), name


def test_reversed_clips_have_different_captions_with_the_same_still_part():
    for clip in CLIPS:
        for held_out in (False, True):
            mine, theirs = language.captions(clip, held_out), language.captions(partner(clip), held_out)
            assert len(set(mine)) == len(mine) and not set(mine) & set(theirs)
            opposite = dict([ANSWERS[clip.kind], ANSWERS[clip.kind][::-1]])
            assert [" ".join(opposite.get(w, w) for w in text.split()) for text in mine] == theirs
        frames = range(8)
        still = [language.still_captions(clip, t) for t in frames]
        assert still == [language.still_captions(partner(clip), t) for t in reversed(frames)]


def test_still_captions_say_what_the_frame_shows(renderer):
    """An order clip's frames without a thing are the bare ground, and say no thing."""
    for clip in [c for c in CLIPS if c.kind == "order"][:4]:
        frames = render_clip(renderer, clip)
        bare = renderer.ground(clip.background, clip.view)
        for t, frame in enumerate(frames):
            empty = language.still_captions(clip, t) == [clip.background]
            assert empty == np.array_equal(frame, bare)


def test_held_out_wordings_are_new_sentences_of_known_words():
    known = set(language.words(148))
    trained = {text for clip in CLIPS for text in language.captions(clip)}
    for clip in CLIPS:
        assert not trained & set(language.captions(clip, held_out=True))
        for text in (*language.captions(clip, True), *language.still_captions(clip, 0)):
            assert set(text.split()) <= known, text
    trained, tested = (
        Counter(
            language.ask(clip, name, number, held_out)[0]
            for name, template in language.QUESTIONS.items()
            for clip in [next(c for c in CLIPS if c.kind in template.kinds)]
            for number in range(len(language.WORDINGS[held_out]))
        )
        for held_out in (False, True)
    )
    assert not set(trained) & set(tested) and max((trained + tested).values()) == 1
    assert all(set(text.split()) <= known for text in trained + tested)


def test_answers_are_balanced_within_every_order_question():
    pairs = draw_pairs("test", 60, 16, 0)
    for family in ("motion", "joint"):
        asked = tasks.questions(pairs, family)
        counts = Counter((pairs[item].kind, answer.split()[-1]) for item, _, _, answer in asked)
        for clip in pairs.clips:
            if clip.kind != "order" and (clip.kind != "distance" or family == "motion"):
                first, second = ANSWERS[clip.kind]
                assert counts[clip.kind, first] == counts[clip.kind, second] > 0


def test_no_thing_ground_and_motion_that_are_tested_met_in_training():
    seen = {}
    for split in ("train", "validation", "test"):
        drawn = draw_pairs(split, 120, 16, 0)
        assert set(Counter(c.kind for c in drawn.clips).values()) == {20}
        assert {c.second for c in drawn.clips} | {c.first for c in drawn.clips} <= set(language.words(16))
        seen[split] = {(c.first, c.background, c.kind) for item in range(len(drawn)) for c in [drawn[item]]}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]
    two = {kind: {row[:2] for row in seen["train"] if row[2] == kind} for kind in ("across", "size")}
    assert two["across"] != two["size"], "a thing is held out on other grounds for another motion"
    assert {c.kind for c in draw_pairs("test", 12, 16, 0, ("size", "turn")).clips} == {"size", "turn"}
    assert draw_pairs("test", 12, 16, 0) == draw_pairs("test", 12, 16, 0) != draw_pairs("test", 12, 16, 1)


def test_partners_are_flips(renderer, pairs, images):
    import torch

    features = torch.from_numpy(images).flatten(2, 3)
    for item in range(6):
        frames = torch.from_numpy(render_clip(renderer, pairs[item])).flatten(1, 2)
        assert torch.equal(data.take(features, [item])[0], frames)
        assert torch.equal(data.take(features, [item], "reversed")[0], frames.flip(0))
        shuffled = data.take(features, [item], "shuffled")[0]
        assert sorted(f.sum().item() for f in shuffled.int()) == sorted(f.sum().item() for f in frames.int())


def seen_frames(count, rule):
    """Sets of pictures (in the clip's own numbers) that a clip and its reversal show, over many draws."""
    import torch

    numbered = torch.arange(8).view(1, 8, 1, 1).repeat(400, 1, 1, 1)
    forward, backward = (rule(numbered, [2 * i + side for i in range(400)], count) for side in (0, 1))
    return [Counter(tuple(sorted(row.flatten().tolist())) for row in rows) for rows in (forward, backward)]


def fixed(numbered, items, count):
    """The rule that this replaced: the later one of two middle frames."""
    return data.take(numbered, items)[:, segments(count, 8)]


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_clip_and_its_reversal_show_the_same_pictures(count):
    """As often, whatever the number of frames: the blind to order cannot tell them. Planted fault: a fixed middle."""
    forward, backward = seen_frames(count, lambda x, items, t: data.take(x, items, frames=t))
    assert set(forward) == set(backward) and len(forward) == (1 if count == 8 else 2)
    assert all(abs(forward[pictures] - backward[pictures]) < 60 and forward[pictures] > 150 for pictures in forward)
    assert all(len(set(pictures)) == count for pictures in forward)
    wrong = seen_frames(count, fixed)
    assert (wrong[0] == wrong[1]) == (count == 8)


def test_shuffled_frames_are_those_that_are_seen():
    import torch

    numbered, items = torch.arange(8).view(1, 8, 1, 1).repeat(50, 1, 1, 1), list(range(100))
    forward, shuffled = (data.take(numbered, items, order, 4).flatten(1) for order in ("forward", "shuffled"))
    assert torch.equal(shuffled.sort().values, forward.sort().values) and not torch.equal(shuffled, forward)
    assert torch.equal(data.take(numbered, items, "reversed", 4).flatten(1), forward.flip(1))
    with pytest.raises(UserError, match="3 of 8 frames"):
        data.take(numbered, items, frames=3)


def test_galleries_differ_in_what_is_seen_and_queries_have_partners():
    pairs = draw_pairs("test", 120, 16, 0)
    found = tasks.galleries(pairs)
    for gallery in found:
        assert len({(pairs.clips[n].first, pairs.clips[n].background) for n in gallery}) == len(gallery)
    sizes, numbers = [len(gallery) for gallery in found], [n for gallery in found for n in gallery]
    assert len(sizes) > 1 and sizes == sorted(sizes, reverse=True) and 2 * sizes[-1] >= sizes[0]
    assert len(set(numbers)) == len(numbers)
    items = [item for part in tasks.queries(pairs) for item in part]
    assert sorted(items) == sorted(2 * n + side for n in numbers for side in (0, 1))


def test_bad_requests_are_named(pairs):
    import torch

    with pytest.raises(UserError, match="unknown split `dev`"):
        draw_pairs("dev", 4, 16, 0)
    with pytest.raises(UserError, match="4 nouns"):
        draw_pairs("train", 4, 4, 0)
    with pytest.raises(UserError, match="unknown order of frames `sorted`"):
        data.take(torch.zeros(1, 8, 2, 2), [0], "sorted")
