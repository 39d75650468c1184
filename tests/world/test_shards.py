"""Pictures in Arrow shards: the same bytes back, by name; damage is named."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.world.scenes import draw_scenes
from mmlib.world.shards import Pictures, write_pictures

SCENES = draw_scenes("train", 25, 0)


@pytest.fixture()
def folder(tmp_path, renderer):
    write_pictures(tmp_path / "a", ((scene.id, renderer.render(scene)) for scene in SCENES), rows=10)
    return tmp_path / "a"


def test_pictures_come_back_by_name(folder, renderer):
    pictures = Pictures(folder)
    assert list(pictures) == [scene.id for scene in SCENES] and len(list(folder.glob("*.arrow"))) == 3
    for scene in reversed(SCENES):
        assert np.array_equal(pictures[scene.id], renderer.render(scene))


def test_equal_pictures_are_equal_bytes_in_other_processes_too(folder, tmp_path, renderer):
    write_pictures(tmp_path / "b", ((scene.id, renderer.render(scene)) for scene in SCENES), rows=10)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_datasets_opens_the_shards(folder):
    from datasets import load_dataset

    rows = load_dataset("arrow", data_files=str(folder / "*.arrow"), split="train", cache_dir=str(folder.parent / "c"))
    assert sorted(rows["name"]) == sorted(scene.id for scene in SCENES)
    assert set(rows.features) == {"name", "height", "width", "pixels"} and rows[0]["height"] == 72


def test_pictures_of_other_sizes_live_in_one_shard(tmp_path):
    wide, high = np.zeros((2, 5, 3), np.uint8), np.ones((7, 1, 3), np.uint8)
    write_pictures(tmp_path, [("wide", wide), ("high", high)])
    assert Pictures(tmp_path)["wide"].shape == (2, 5, 3) and Pictures(tmp_path)["high"].shape == (7, 1, 3)


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "foreign"])
def test_damage_is_named(folder, damage):
    first = folder / "pictures-00000.arrow"
    raw = first.read_bytes()
    if damage == "cut":
        first.write_bytes(raw[:-100])
    elif damage == "flip":
        first.write_bytes(raw[:-100] + bytes([raw[-100] ^ 1]) + raw[-99:])
    elif damage == "remove":
        first.unlink()
    else:
        first = folder / "pictures-00009.arrow"
        first.write_bytes(raw)
    with pytest.raises(UserError, match=first.name):
        Pictures(folder)


def test_an_unknown_picture_and_a_name_given_twice_are_named(folder, tmp_path):
    with pytest.raises(UserError, match="no picture elephant"):
        Pictures(folder)["elephant"]
    with pytest.raises(UserError, match="two pictures are called x"):
        write_pictures(tmp_path / "twice", [("x", np.zeros((1, 1, 3), np.uint8))] * 2)
