"""A tiny CLIP, a few clips, and what both make of each other."""

from __future__ import annotations

import pytest
import torch

from mmlib.vlab import clip_base, language
from mmlib.vlab.batches import Sequences
from mmlib.vlab.data import draw_pairs, render_pairs
from tests.world.conftest import renderer as renderer  # the fixture

NOUNS, WIDTH, LAYERS = 8, 32, 2


@pytest.fixture(scope="session")
def words():
    return language.build_tokenizer(NOUNS)


@pytest.fixture(scope="session")
def small_clip(words):
    """Random weights, but large enough ones that no feature is negligible."""
    model = clip_base.build_clip(words, WIDTH, LAYERS, 18, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.fixture(scope="session")
def pairs():
    return draw_pairs("train", 12, NOUNS, 0)


@pytest.fixture(scope="session")
def images(renderer, pairs):
    return render_pairs(renderer, pairs)


@pytest.fixture(scope="session")
def sequences(words):
    return Sequences(words, 0.8)
