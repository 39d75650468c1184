"""Scenes: exact, seeded, disjoint by split, with held-out pairs kept away from training."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.world import nouns, scenes
from mmlib.world.nouns import load_nouns
from mmlib.world.render import Renderer
from mmlib.world.scenes import SPLITS, Placed, Scene, Sign, draw_scenes
from tests.world.conftest import DATA


def test_there_are_enough_nouns_and_every_one_has_the_name_that_the_emoji_package_gives_it():
    table = load_nouns()
    assert len(table) >= 120 and len({n.category for n in table}) >= 10
    known = json.loads((DATA / "emoji/emoji.json").read_text())
    names = {"-".join(f"{ord(c):04X}" for c in char): entry["en"].strip(":") for char, entry in known.items()}
    renamed = {"car": "automobile", "bee": "honeybee"}
    for noun in table:
        assert names[noun.code] == renamed.get(noun.noun, noun.noun)
        assert noun.held in ("yes", "no")


def test_splits_are_disjoint_whatever_the_seed():
    keys = {split: {s.key for seed in (0, 1) for s in draw_scenes(split, 400, seed)} for split in SPLITS}
    for first in SPLITS:
        for second in SPLITS:
            assert first == second or not keys[first] & keys[second]


def test_held_out_pairs_appear_in_novel_scenes_only_and_in_all_of_them():
    def pairs(scene):
        return [(o.noun, o.colour) for o in scene.objects]

    for split in ("train", "val", "test"):
        assert not any(scenes.is_held_out(*pair) for s in draw_scenes(split, 500, 0) for pair in pairs(s))
    assert all(any(scenes.is_held_out(*pair) for pair in pairs(s)) for s in draw_scenes("novel", 200, 0))
    held = [(n.noun, c) for n in load_nouns() for c in nouns.COLOURS if scenes.is_held_out(n.noun, c)]
    assert 0.05 < len(held) / (len(load_nouns()) * len(nouns.COLOURS)) < 0.15


def test_the_same_seed_gives_the_same_scenes_and_more_begin_alike():
    few, many = draw_scenes("train", 20, 3), draw_scenes("train", 60, 3)
    assert many[:20] == few and draw_scenes("train", 20, 4) != few
    assert len({s.key for s in many}) == 60


def test_scene_graphs_are_sound():
    for scene in draw_scenes("train", 300, 0):
        cells = [o.cell for o in scene.objects] + ([scene.sign.cell] if scene.sign else [])
        assert len(set(cells)) == len(cells) and 1 <= len(scene.objects) <= 6
        for o in scene.objects:
            assert all(0 <= value <= scenes.SIDE for value in o.box)
            assert (o.row, o.column) == (o.box[1] // scenes.CELL, (o.box[0] + 1) // scenes.CELL)
            assert scene.count(o.noun) == len([x for x in scene.of_category(nouns.by_name()[o.noun].category)
                                               if x.noun == o.noun])  # fmt: skip


def test_the_world_repeats_itself_as_the_web_does():
    counts = Counter(o.noun for s in draw_scenes("train", 3000, 0) for o in s.objects)
    common = sum(n for _, n in counts.most_common(30)) / sum(counts.values())
    assert len(counts) == len(load_nouns()) and common > 0.3


def test_the_same_scene_is_the_same_bytes(renderer):
    drawn = draw_scenes("train", 30, 0)
    first, again = renderer.render_all(drawn), Renderer(DATA).render_all(drawn)
    assert np.array_equal(first, again)
    # The pins of resvg-py, Pillow and OpenMoji stand behind this: another machine must give the same.
    assert hashlib.sha256(first.tobytes()).hexdigest()[:16] == "6eaeb48edd4a7faa"


def test_only_what_the_graph_says_is_drawn(renderer):
    scene = Scene("x", (Placed("dog", "red", "large", 4, (1, -1)),), Sign("zoo", 0), "white", (0, 0))
    image = renderer.render(scene)
    changed = np.zeros(image.shape[:2], bool)
    for x0, y0, x1, y1 in (scene.objects[0].box, scene.sign.box):
        assert (image[y0:y1, x0:x1] != nouns.FLAT["white"]).any()
        changed[y0:y1, x0:x1] = True
    assert (image[~changed] == nouns.FLAT["white"]).all(), "something is drawn outside the boxes"
    x0, y0, _, _ = scene.objects[0].box
    assert tuple(image[y0 + 1, x0 + 11]) == nouns.COLOURS["red"], "the plate has another colour"


def test_drawings_differ_at_the_smallest_size(renderer):
    drawn = [renderer.sprite(n.noun, nouns.SIZES["small"]).astype(int) for n in load_nouns()]
    closest = min(np.abs(a - b).mean() for i, a in enumerate(drawn) for b in drawn[:i])
    assert closest > 4, "two nouns look the same"


def test_bad_requests_name_culprit_and_remedy(renderer, tmp_path):
    with pytest.raises(UserError, match="unknown split `trian`"):
        draw_scenes("trian", 1, 0)
    with pytest.raises(UserError, match="cannot hold 0 to 7 things"):
        draw_scenes("train", 1, 0, objects=(0, 7))
    with pytest.raises(UserError, match="unknown noun `unicron`"):
        renderer.sprite("unicron", 14)
    with pytest.raises(UserError, match="unknown background `lawn`"):
        renderer.ground("lawn", (0, 0))
    with pytest.raises(UserError, match=r"svg\.zip is missing"):
        Renderer(tmp_path).sprite("dog", 14)


def test_a_drawing_that_is_missing_or_does_not_parse_is_named(tmp_path):
    import zipfile

    (tmp_path / "openmoji").mkdir()
    with zipfile.ZipFile(tmp_path / "openmoji/svg.zip", "w") as archive:
        archive.writestr("1F415.svg", "<svg")
    with pytest.raises(UserError, match=r"no drawing of `dog` \(1F415\.svg\)"):
        Renderer(tmp_path).sprite("dog", 14)
    with pytest.raises(UserError, match="no drawing of `cat`"):
        Renderer(tmp_path).sprite("cat", 14)


def test_more_scenes_than_there_are_is_an_error_and_not_a_loop(monkeypatch):
    monkeypatch.setattr(scenes, "TRIES", 50)
    monkeypatch.setattr(scenes, "split_of", lambda scene: "none")
    with pytest.raises(UserError, match="no further scene of split `train`"):
        draw_scenes("train", 1, 0)


def test_a_noun_that_stands_twice_is_refused(tmp_path):
    table = tmp_path / "nouns.csv"
    table.write_text("noun,code,category,place,held\ndog,1,animal,house,no\ndog,2,animal,house,no\n")
    with pytest.raises(UserError, match="noun `dog` stands twice"):
        load_nouns(table)
    table.write_text("noun,code,category,place,held\ndog,1,,house,no\n")
    with pytest.raises(UserError, match="noun `dog` has no `category`"):
        load_nouns(table)
