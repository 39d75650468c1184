"""Scenes: texts are true, swaps are false; digits of tests are not those of training."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib.survey_vlp import scenes as s


def pairs_of(row: np.ndarray) -> set[tuple[str, str]]:
    return {(s.COLOURS[c], s.NAMES[n]) for n, c in row if n >= 0}


def test_captions_are_true_and_swapped_ones_are_not():
    from mmlib.survey_vlp.answers import facts

    things = s.draw(60, (2, 2), 0, distinct=True)
    for row, text, swapped in zip(things, s.captions(things, 1), s.captions(things, 1, swap=True), strict=True):
        assert facts(text) == pairs_of(row)
        assert not facts(swapped) & pairs_of(row)
        assert sorted(text.replace(" on", "").split()) == sorted(swapped.replace(" on", "").split())


@pytest.mark.parametrize("kind", s.KINDS)
def test_answers_are_true(kind):
    things = s.draw(200, (1, 4), 3)
    texts, answers = s.questions(things, kind, 5)
    for row, text, answer in zip(things, texts, answers, strict=True):
        said, words = s.WORDS[answer], text.split()
        nouns = [s.NAMES[n] for n in row[:, 0] if n >= 0]
        if kind == "count":
            assert said == s.NUMBERS[nouns.count(words[1])]
        else:
            assert (said, words[1]) in pairs_of(row)


def test_pictures_show_what_the_scene_says(root):
    things = s.draw(40, (2, 2), 0, distinct=True)
    for world in ("emoji", "digits"):
        pixels = s.render(things, root / "data", 0, world=world)
        assert pixels.shape == (40, 24, 24, 3) and pixels.dtype == np.float32 and abs(pixels).max() <= 1
        again = s.render(things, root / "data", 0, world=world)
        assert np.array_equal(pixels, again)
        spread = s.tiles(pixels, 12).std(2)  # empty cells are flat
        assert (spread[things[..., 0] < 0] < 0.02).mean() > 0.7 and spread[things[..., 0] >= 0].min() > 0.05


def test_digits_of_tests_are_other_ones(root):
    things = np.full((300, 4, 2), -1)
    things[:, 0] = (3, 0)
    seen, new = (s.render(things, root / "data", 0, world="digits", test=test) for test in (False, True))
    key = [{p[p.max(axis=(1, 2)) > -1].tobytes() for p in part[:, :12, :12, :1]} for part in (seen, new)]
    assert len(key[0]) > 50 and not key[0] & key[1]


def test_tiles_cut_the_picture():
    pixels = np.arange(2 * 24 * 24 * 3, dtype=np.float32).reshape(2, 24, 24, 3)
    cells, patches = s.tiles(pixels, 12), s.tiles(pixels, 6)
    assert np.array_equal(cells[1, 2].reshape(12, 12, 3), pixels[1, 12:, :12])
    assert np.array_equal(patches[0, 7].reshape(6, 6, 3), pixels[0, 6:12, 18:])
