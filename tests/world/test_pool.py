"""The pool: the original's shares, layout and answer styles; every answer right; knobs that do what they say."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mmlib.errors import UserError
from mmlib.formats import llava
from mmlib.formats.reading import Skips
from mmlib.world import knobs, language, nouns, pool, questions
from mmlib.world.questions import box_text
from mmlib.world.scenes import draw_scenes

SCENES = draw_scenes("train", 2000, 0)
BY_ID = {scene.id: scene for scene in SCENES}
POOL = pool.build(SCENES, 1330, 0)


def scene_of(record):
    return BY_ID[record.image.rpartition("/")[2].removesuffix(".png")]


def of(kind):
    return [record for record in POOL if pool.kind_of(record) == kind]


def test_shares_are_those_of_mix_665k():
    assert sum(kind.original for kind in pool.KINDS) == 665_298
    counts = Counter(pool.kind_of(record) for record in POOL)
    for kind in pool.KINDS:
        assert counts[kind.name] == round(1330 * kind.original / 665_298)
    by_label = Counter(record.dataset for record in POOL)
    assert len(by_label) == 10 and max(by_label.values()) / min(by_label.values()) >= 10


def test_records_are_in_order_seeded_and_survive_the_public_format(tmp_path):
    assert [k for i, k in enumerate(map(pool.kind_of, POOL)) if not i or k != pool.kind_of(POOL[i - 1])] == [
        kind.name for kind in pool.KINDS
    ]
    assert pool.build(SCENES, 1330, 0) == POOL != pool.build(SCENES, 1330, 1)
    skips = Skips()
    llava.write_records(tmp_path / "pool.json", POOL)
    assert list(llava.read_records(tmp_path / "pool.json", skips, pool.LABELS)) == POOL and not skips.counts
    assert len({record.id for record in POOL}) == len(POOL)


def test_text_only_records_have_a_model_and_no_image():
    for record in POOL:
        assert (record.image is None) == (pool.kind_of(record) == "chat") == (record.model is not None)


def test_questions_of_a_picture_are_merged_and_pictures_are_shared():
    assert max(len(record.turns) for record in of("vqa")) >= 8 and all(len(r.turns) == 2 for r in of("choice"))
    users = Counter(record.image for record in POOL if record.image and record.image.startswith("coco"))
    assert max(users.values()) >= 2
    for record in POOL:
        asked = [turn.text for turn in record.turns[::2]]
        assert len(set(asked)) == len(asked) or pool.kind_of(record) == "chat"


def answers(kind, pattern):
    """(scene, match of the question, answer) of every turn of that kind that fits the pattern."""
    found = [
        (scene_of(record), match, record.turns[i + 1].text)
        for record in of(kind)
        for i in range(0, len(record.turns), 2)
        if (match := re.search(pattern, record.turns[i].text))
    ]
    assert found, f"no {kind} record matches {pattern}"
    return found


def test_answers_are_right_by_the_graph():
    for scene, match, answer in answers("vqa", r"(?:^|\n)(?:is there|do you see) an? (\w+) \?"):
        assert answer == ("yes" if scene.count(match[1]) else "no")
    for scene, match, answer in answers("vqa", r"how many (\w+) pictures"):
        assert answer == language.DIGITS[scene.count(match[1])]
    for scene, _, answer in answers("ocr", "sign"):
        assert answer == scene.sign.word
    for scene, match, answer in answers("refer", r"box of the (.+?) [.?]"):
        assert answer in {box_text(o.box) for o in scene.objects if language.phrase(o) == match[1]}
    for scene, match, answer in answers("region", r"(\[.*\])"):
        assert answer in {language.phrase(o) for o in scene.objects if box_text(o.box) == match[1]}
    for scene, match, answer in answers("reasoning", r"belongs to the (\w+)"):
        thing = re.search(r"in the (\w+) is an? (\w+) \.", answer)
        assert (thing[1], thing[2]) in {(o.where, o.noun) for o in scene.objects}
        assert nouns.by_name()[thing[2]].place == match[1] and answer.endswith(f"so it is the {thing[2]} .")
    for scene, _, answer in answers("reasoning", "belong together"):
        first, second = re.search(r"so the (\w+) and the (\w+) belong", answer).groups()
        assert scene.count(first) and scene.count(second) and first != second
        assert nouns.by_name()[first].category == nouns.by_name()[second].category


def test_words_of_tests_are_known_from_the_pool():
    known = {word for record in POOL for turn in record.turns for word in turn.text.split()}
    texts = [w for sets in questions.wordings().values() for w in sets["held_out"]]
    texts += [*language.CAPTIONS[True], *language.THING[True]]
    for text in texts:
        unknown = set(re.sub(r"\{\w+\}", "", text).split()) - known
        assert not unknown, f"`{text}` has words that the pool never uses: {unknown}"


def test_no_wording_of_a_test_stands_in_the_pool():
    asked = {turn.text for record in POOL for turn in record.turns[::2]}
    for kind, sets in questions.wordings().items():
        for wording in sets["held_out"]:
            pattern = re.escape(wording).replace("\\{options\\}", ".*")
            pattern = re.compile(
                r"(^|\n)" + re.sub(r"\\\{\w+\\\}", r"[^ ]+( [^ ]+){0,3}", pattern) + r"( answer with|$)"
            )
            assert not any(pattern.search(text) for text in asked), f"{kind}: {wording}"


def test_duplicates_are_exact_and_as_many_as_asked():
    more = knobs.with_duplicates(POOL, 0.2, 0)
    copies = more[len(POOL) :]
    assert more[: len(POOL)] == POOL and len(copies) == round(0.2 * len(POOL))
    by_id = {record.id: record for record in POOL}
    for copy in copies:
        assert copy.turns == by_id[copy.id.removeprefix("copy-")].turns
        assert pool.kind_of(copy) == pool.kind_of(by_id[copy.id.removeprefix("copy-")])


def test_wrong_answers_are_wrong_and_nothing_else_changes():
    spoilt, wrong = knobs.with_wrong_answers(POOL, 0.3, 0)
    assert len(wrong) / len(POOL) == pytest.approx(0.3, abs=0.02)
    for before, after in zip(POOL, spoilt, strict=True):
        assert (before != after) == (before.id in wrong)
        assert before.turns[::2] == after.turns[::2] and before.image == after.image
        if before.id in wrong:
            assert all(a.text != b.text for a, b in zip(before.turns[1::2], after.turns[1::2], strict=True))


def test_bad_requests_are_named():
    with pytest.raises(UserError, match="scene test0-000000 is not a training scene"):
        pool.build(draw_scenes("test", 10, 0), 100, 0)
    with pytest.raises(UserError, match="leave folder"):
        pool.build(SCENES[:3], 100, 0)
    with pytest.raises(UserError, match="a share of 2"):
        knobs.with_duplicates(POOL, 2, 0)
