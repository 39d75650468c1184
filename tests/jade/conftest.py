"""A CLIP and a generator with random weights that are large enough for no token to be negligible."""

from __future__ import annotations

import pytest
import torch

from mmlib.jade import corpora
from mmlib.jade.batches import Maker
from mmlib.jade.model import Jade, Shape
from mmlib.jade.tokens import Words, first_word
from mmlib.jade.training import FILTER_SHAPE
from mmlib.models.clip import build_clip
from tests.world.conftest import renderer as renderer  # the fixture

SIDE = 72
ENDS = 1.5  # how much likelier than other words the ends of texts are


def louder(model, amount=0.15, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def small_model(shape, seed=0):
    from mmlib.jade.tokens import build_tokenizer

    words = Words(SIDE)
    clip = build_clip(build_tokenizer(SIDE), 32, 3, 21, seed)
    model = louder(Jade(clip, len(words), words.pad, shape, seed))
    with torch.no_grad():  # plain words, and texts that end: of random weights alone none would
        model.bias[: first_word(SIDE)] -= 10
        model.bias[[words.sep, words.answer]] += 10 + ENDS
    return model


@pytest.fixture(scope="session")
def maker():
    return Maker(Words(SIDE), Shape(width=32, layers=2))


@pytest.fixture(scope="session")
def generator():
    return small_model(Shape(width=32, layers=2))


@pytest.fixture(scope="session")
def filter_model():
    return small_model(Shape(width=32, layers=2, region=FILTER_SHAPE.region, places=FILTER_SHAPE.places), 5)


@pytest.fixture(scope="session")
def web():
    return corpora.draw_part("web", 12, 0)


@pytest.fixture(scope="session")
def images(renderer, web):
    return corpora.pictures(renderer, web, corpora.Clutter())
