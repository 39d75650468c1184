"""Corpora: disjoint, shifted, the same in any order; language whose own questions the truth calls right."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.formats.reading import Skips
from mmlib.jade import corpora, detect, language, truth
from mmlib.jade.tokens import Words, build_tokenizer
from mmlib.world.scenes import Placed, Scene, split_of


def scene(*things):
    return Scene("x", tuple(Placed(*thing, (0, 0)) for thing in things), None, "white", (0, 0))


DOG = scene(("dog", "red", "large", 0), ("dog", "blue", "small", 1), ("cat", "green", "small", 8))


def test_parts_are_disjoint_and_tests_hold_what_clip_never_met():
    keys = {part: {s.key for s in corpora.draw_part(part, 150, 0)} for part in corpora.PARTS}
    assert all(not keys[a] & keys[b] for a in keys for b in keys if a != b)
    assert all(split_of(s) != "train" for s in corpora.draw_part("test", 100, 0))
    with pytest.raises(UserError, match="unknown part `x`"):
        corpora.draw_part("x", 1, 0)


def test_a_longer_corpus_begins_like_a_shorter_one():
    assert corpora.draw_part("web", 5, 3) == corpora.draw_part("web", 9, 3)[:5]
    assert corpora.draw_part("web", 5, 3) != corpora.draw_part("web", 5, 4)


def test_the_web_is_shifted():
    def shares(part):
        things = [o for s in corpora.draw_part(part, 300, 0) for o in s.objects]
        new = np.mean([o.colour not in corpora.familiar(o.noun) for o in things])
        return new, np.mean([o.size == corpora.usual_size(o.noun) for o in things])

    assert shares("generator")[0] == 0 and shares("generator")[1] == pytest.approx(0.75, abs=0.06)
    assert shares("web")[0] == pytest.approx(0.6, abs=0.06) and shares("web")[1] == pytest.approx(0.25, abs=0.06)


def test_clutter_depends_on_the_picture_alone(renderer, web, images):
    assert (corpora.pictures(renderer, web[::-1], corpora.Clutter())[::-1] == images).all()
    assert (corpora.pictures(renderer, web) != images).any()


@pytest.mark.parametrize("kind", language.KINDS)
def test_every_question_of_the_world_is_understood_and_right(kind):
    draw = random.Random(0)
    for one in corpora.draw_part("base", 60, 0):
        for yes in (True, False):
            said = language.ask(one, draw.choice(one.objects), kind, draw, yes)
            assert truth.judge(one, said.question, said.answer) == truth.RIGHT
            assert language.understand(said.question)[0] == kind
            elsewhere = language.ask(one, one.objects[0], kind, draw, yes, elsewhere=True)
            assert language.understand(elsewhere.question) is None, "a held-out wording is one of the corpus"
            if kind in ("exist", "match"):
                assert said.answer == said.type == ("yes" if yes else "no")


@pytest.mark.parametrize(
    ("question", "answer", "verdict"),
    [
        ("what is in the northwest ?", "dog", truth.RIGHT),
        ("what is in the northwest ?", "cat", truth.WRONG),
        ("what is in the south ?", "dog", truth.PRESUPPOSITION),
        ("what color is behind the dog ?", "blue", truth.RIGHT),
        ("what color is behind the owl ?", "blue", truth.PRESUPPOSITION),
        ("how many owl are there ?", "zero", truth.PRESUPPOSITION),
        ("how many dog are there ?", "one", truth.WRONG),
        ("where is the cat ?", "southeast", truth.RIGHT),
        ("which thing is on pink ?", "cat", truth.PRESUPPOSITION),
        ("is the cat on red ?", "no", truth.RIGHT),
        ("is the owl on red ?", "no", truth.PRESUPPOSITION),
        ("is there a owl ?", "yes", truth.WRONG),
        ("how big is the red ?", "small", truth.GARBLED),
        ("how big is", "small", truth.GARBLED),
    ],
)
def test_verdicts(question, answer, verdict):
    assert truth.judge(DOG, question, answer) == verdict
    assert (answer in truth.right_answers(DOG, question)) == (verdict == truth.RIGHT)


def test_captions_are_judged_by_the_thing_in_the_box():
    box = DOG.objects[0].box
    moved = tuple(value + 2 for value in box)
    assert truth.caption_right(DOG, moved, "large dog on red") and truth.caption_right(DOG, box, "large dog")
    assert not truth.caption_right(DOG, box, "small dog") and not truth.caption_right(DOG, box, "dog dog on red")
    assert not truth.caption_right(DOG, (30, 50, 52, 72), "large dog")


def test_types_follow_the_released_rule():
    assert language.question_type("what is it ?", "yes") == "what"
    assert language.question_type("is it ?", "yes") == "yes"
    assert language.question_type("which ?", "dog") == "other" and language.question_type("", "dog") == "other"


def test_words_cover_the_study_and_agree_with_the_librarys_tokenizer(web):
    words, library = Words(), build_tokenizer()
    draw = random.Random(0)
    texts = [corpora.web_image(s).caption for s in web] + [text for s in web for text in language.coco_captions(s)]
    texts += [language.ask_type(s, s.objects[0], kind, draw, e).question for s in web for kind in language.TYPES
              for e in (True, False)]  # fmt: skip
    for text in texts:
        assert words.text(words.ids(text)) == text
        assert library(text, add_special_tokens=False).input_ids == words.ids(text)
    assert words.text(words.place((0, -4, 144, 71), 144, 72)) == "[loc0] [loc0] [loc71] [loc71]"


def test_oracle_boxes_are_moved_missed_and_invented(web):
    exact = detect.Oracle(0, 0.0, 0.0)
    assert all({b.corners for b in exact(s, None)} == {o.box for o in s.objects} for s in web)
    loose = detect.Oracle(2, 0.3, 0.0)
    assert sum(len(loose(s, None)) for s in web) < sum(len(s.objects) for s in web)
    assert all(truth.thing_in(s, b.corners) for s in web for b in loose(s, None))
    assert loose(web[0], None) == loose(web[0], None)


def test_the_classical_detector_finds_plates_without_the_truth(renderer):
    scenes = corpora.draw_part("base", 40, 0)
    found = things = false = 0
    for one, image in zip(scenes, corpora.pictures(renderer, scenes), strict=True):
        boxes = [b.corners for b in detect.Plates()(None, image)]
        found += sum(any(truth.intersection_over_union(o.box, b) > 0.5 for b in boxes) for o in one.objects)
        false += sum(truth.thing_in(one, b) is None for b in boxes)
        things += len(one.objects)
    assert found / things > 0.6 and false / things < 0.1


def test_bad_boxes_are_counted_and_never_filled_up():
    skips = Skips()
    boxes = [detect.Box((-3, 0, 20, 20), 0.9), detect.Box((80, 0, 90, 9), 0.8), detect.Box((5, 5, 5, 9), 0.7)]
    assert [b.corners for b in detect.usable(boxes, 16, skips, "p")] == [(0, 0, 20, 20)]
    assert detect.usable([], 16, skips, "q") == []
    assert skips.counts == {"box outside the picture clipped": 1, "empty box": 2, "picture without a box": 1}


def test_stored_boxes_are_read_best_first_and_damage_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", pred_boxes=np.array([[0, 0, 5, 5], [1.4, 1, 9, 9]]), scores=np.array([0.2, 0.8]))
    assert [b.corners for b in detect.Stored(tmp_path).read("a")] == [(1, 1, 9, 9), (0, 0, 5, 5)]
    np.savez(tmp_path / "b.npz", pred_boxes=np.zeros((2, 4)), scores=np.zeros(3))
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:50])
    for name in ("b", "c", "d"):
        with pytest.raises(UserError, match=f"{name}.npz"):
            detect.Stored(tmp_path).read(name)
