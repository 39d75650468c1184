"""Trained models between shards: what comes back, and damage that is named."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.jade import weights
from mmlib.jade.model import Jade, Shape
from tests.jade.conftest import small_model

SHAPE = Shape(width=32, layers=2, region=False)


def test_weights_come_back_and_damage_is_named(tmp_path, monkeypatch):
    model = small_model(SHAPE, 4)
    shard = {"seed": 0, "model": "generator"}
    made = weights.stored([{"curve": [], "weights": weights.as_text(model)}], [shard], tmp_path, "w")
    where = made[0, "generator"]["weights"]
    monkeypatch.setattr(weights, "blank", lambda root, shape: small_model(shape, 5))
    back = weights.opened(tmp_path, where, SHAPE)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(weights.FROZEN)}
    assert own and all(torch.equal(back.state_dict()[name], value) for name, value in own.items())
    with pytest.raises(UserError, match="another model"):
        weights.opened(tmp_path, where, Shape(width=32, layers=2))
    weights._opened.cache_clear()
    path = tmp_path / where["path"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="was changed"):
        weights.opened(tmp_path, where, SHAPE)
    weights.stored([{"weights": weights.as_text(model)}], [shard], tmp_path, "w")  # a torn file is written again
    assert isinstance(weights.opened(tmp_path, where, SHAPE), Jade)
