"""Language: every answer is right by the scene graph, wordings of tests are never those of training."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from mmlib.errors import UserError
from mmlib.world import language, nouns, questions
from mmlib.world.scenes import Placed, Scene, Sign, draw_scenes

SCENE = Scene(
    "s",
    (Placed("dog", "red", "large", 0, (0, 0)), Placed("cat", "blue", "small", 1, (0, 0)),
     Placed("cat", "green", "large", 2, (0, 0)), Placed("banana", "pink", "small", 7, (1, 1))),
    Sign("zoo", 4), "grass", (0, 0),
)  # fmt: skip
# (question as asked, answer) that hold for SCENE, written down by hand.
TRUTH = {
    "exist": {("is there a dog ?", "yes"), ("is there a cat ?", "yes"), ("is there a banana ?", "yes")},
    "count": {("how many cat pictures are there ?", "two"), ("how many dog pictures are there ?", "one"),
              ("how many banana pictures are there ?", "one")},
    "color": {("on which color is the dog ?", "red"), ("on which color is the banana ?", "pink")},
    "where": {("where is the dog ?", "northwest"), ("where is the banana ?", "south")},
    "what": {("what is in the northwest ?", "dog"), ("what is in the north ?", "cat"),
             ("what is in the northeast ?", "cat"), ("what is in the south ?", "banana")},
    "size": {("what size is the dog ?", "large"), ("what size is the banana ?", "small")},
    "background": {("what is the background ?", "grass")},
    "sign": {("read the sign .", "zoo")},
    "sign_place": {("where is the sign ?", "center")},
    "kind": {("what kind of thing is in the northwest ?", "animal"), ("what kind of thing is in the south ?", "fruit"),
             ("what kind of thing is in the north ?", "animal"),
             ("what kind of thing is in the northeast ?", "animal")},
    "place": {("where does the thing in the south belong ?", "jungle"),
              *((f"where does the thing in the {w} belong ?", "house") for w in ("north", "northwest", "northeast"))},
    "held": {("is the thing in the south held in one hand ?", "yes"),
             *((f"is the thing in the {w} held in one hand ?", "no") for w in ("north", "northwest", "northeast"))},
    "side": {("is the dog left of the banana ?", "yes"), ("is the banana left of the dog ?", "no")},
    "above": {("is the dog above the banana ?", "yes"), ("is the banana above the dog ?", "no")},
    "beside": {("what is right of the dog ?", "cat")},
    "beside_color": {("on which color is the thing right of the dog ?", "blue")},
    "refer": {("give the box of the large dog on red .", "[0.01,0.01,0.32,0.32]"),
              ("give the box of the small cat on blue .", "[0.35,0.01,0.65,0.32]"),
              ("give the box of the large cat on green .", "[0.68,0.01,0.99,0.32]"),
              ("give the box of the small banana on pink .", "[0.36,0.69,0.67,1.00]")},
    "region": {("describe the region [0.01,0.01,0.32,0.32] .", "large dog on red"),
               ("describe the region [0.35,0.01,0.65,0.32] .", "small cat on blue"),
               ("describe the region [0.68,0.01,0.99,0.32] .", "large cat on green"),
               ("describe the region [0.36,0.69,0.67,1.00] .", "small banana on pink")},
    "compare": {("are there more cat pictures than dog pictures ?", "yes"),
                ("are there more dog pictures than cat pictures ?", "no"),
                ("are there more cat pictures than banana pictures ?", "yes"),
                ("are there more banana pictures than cat pictures ?", "no")},
    "odd": {("which thing does not belong ?", "banana")},
    "exist_color": {("is there a dog on red ?", "yes"), ("is there a cat on blue ?", "yes"),
                    ("is there a cat on green ?", "yes"), ("is there a banana on pink ?", "yes")},
}  # fmt: skip
FREE = {"choice"}  # options are drawn: checked below


@pytest.mark.parametrize("kind", sorted(TRUTH))
def test_answers_are_those_of_the_graph(kind):
    held_out = not questions.wordings()[kind]["training"]
    asked = {(q.text, q.answer) for seed in range(600)
             if (q := questions.ask(kind, SCENE, random.Random(seed), held_out))}  # fmt: skip
    asked_so = {text for text, _ in TRUTH[kind]}
    assert {pair for pair in asked if pair[0] in asked_so} == TRUTH[kind]
    by_text = {}
    for text, answer in asked:
        assert by_text.setdefault(text, answer) == answer, f"two answers to `{text}`"


def test_every_kind_has_its_truth_written_down():
    assert set(TRUTH) | FREE == set(questions.ASKERS) == set(questions.wordings())


def test_absent_things_are_answered_no_and_zero():
    for seed in range(400):
        draw = random.Random(seed)
        exist, count = questions.ask("exist", SCENE, draw), questions.ask("count", SCENE, draw)
        assert (exist.answer == "no") == (SCENE.count(exist.about) == 0)
        assert count.answer == language.DIGITS[SCENE.count(count.about)]
        pair = questions.ask("exist_color", SCENE, draw, held_out=True)
        noun, colour = re.search(r"an? (\w+) on (\w+)", pair.text).groups()
        assert (pair.answer == "yes") == any((o.noun, o.colour) == (noun, colour) for o in SCENE.objects)


def test_the_letter_points_to_the_thing():
    for seed in range(200):
        q = questions.ask("choice", SCENE, random.Random(seed))
        options = dict(re.findall(r"([a-d]) : (\w+)", q.text))
        where = re.search(r"[Ii]n the (\w+)", q.text)[1]
        assert len(set(options.values())) == 4
        assert options[q.answer] == next(o.noun for o in SCENE.objects if o.where == where)


def test_wordings_of_tests_are_not_those_of_training_and_every_kind_has_some():
    for kind, sets in questions.wordings().items():
        assert sets["held_out"], kind
        assert not set(sets["training"]) & set(sets["held_out"]), kind
    everything = [w for sets in questions.wordings().values() for part in sets.values() for w in part]
    assert len(set(everything)) == len(everything)
    for table in (language.CAPTIONS, language.THING):
        assert not set(table[False]) & set(table[True])


@pytest.mark.parametrize("kind", ["exist", "size", "held", "side", "above", "compare", "exist_color"])
def test_answers_of_two_are_balanced(kind):
    held_out = not questions.wordings()[kind]["training"]
    draw, scenes = random.Random(0), draw_scenes("train", 3000, 0)
    answers = Counter(q.answer for s in scenes if (q := questions.ask(kind, s, draw, held_out)))
    assert len(answers) == 2 and max(answers.values()) / sum(answers.values()) < 0.6


def test_captions_name_everything_and_nothing_else():
    draw = random.Random(0)
    names = {n.noun for n in nouns.load_nouns()}
    for held_out in (False, True):
        for scene in draw_scenes("train", 100, 0):
            for text in (language.caption(scene, draw, held_out), language.short_caption(scene, draw, held_out)):
                assert names & set(text.split()) == {o.noun for o in scene.objects}
                assert not scene.sign or scene.sign.word in text.split()
            text = language.detail(scene, draw)
            assert Counter(w for w in text.split() if w in names) == Counter(o.noun for o in scene.objects)


def test_alt_text_is_wrong_as_often_as_asked():
    draw, scenes = random.Random(0), draw_scenes("train", 4000, 0)
    made = [language.alt_text(scene, draw, 0.3) for scene in scenes]
    for noise in ("wrong", "off-topic"):
        assert sum(alt.noise == noise for alt in made) / len(made) == pytest.approx(0.15, abs=0.02)
    for scene, alt in zip(scenes, made, strict=True):
        shown = scene.count(alt.text.split()[-1]) > 0
        assert shown == (alt.noise == "exact")
    assert all(language.alt_text(scene, draw, 0).noise == "exact" for scene in scenes[:200])
    with pytest.raises(UserError, match="noise of alt-text is 2"):
        language.alt_text(scenes[0], draw, 2)


def test_bad_kinds_are_named():
    with pytest.raises(UserError, match="unknown question kind `smell`"):
        questions.ask("smell", SCENE, random.Random(0))
    with pytest.raises(UserError, match="`odd` is for tests only"):
        questions.ask("odd", SCENE, random.Random(0))
