"""What the probes count: true captions score one, another scene's do not."""

from __future__ import annotations

import random

import pytest

from mmlib.models import clip, llava, llava_probe
from mmlib.world import language, vocabulary
from mmlib.world.scenes import draw_scenes
from tests.world.conftest import renderer as renderer  # the fixture

TOKENIZER = vocabulary.build_tokenizer()
SCENES = draw_scenes("test", 12, 0)


@pytest.mark.parametrize(("shift", "right"), [(0, True), (1, False)])
def test_true_captions_name_and_place_everything(monkeypatch, renderer, shift, right):
    said = [language.caption(scene, random.Random(0)) for scene in SCENES]
    monkeypatch.setattr(llava, "answer", lambda *args, **kwargs: [*said[shift:], *said[:shift]])
    found = llava_probe.captions(None, TOKENIZER, SCENES, renderer)
    assert (set(found.values()) == {1.0}) is right and (right or max(found.values()) < 0.5)


def test_an_untrained_model_answers_hardly_a_question(renderer):
    tower = clip.build_clip(TOKENIZER, 16, 2, 21, 0)
    model = llava.build_llava(tower, TOKENIZER, {"width": 32, "layers": 1}, 0).eval()
    assert 0 <= llava_probe.plain_questions(model, TOKENIZER, SCENES, renderer, 0) < 0.2
