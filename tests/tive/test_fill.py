"""From records to a store: resumed where it was killed, refused for another model or pool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlib.errors import UserError
from mmlib.formats.llava import Record, Turn
from mmlib.tive import fill as filling
from mmlib.tive.datastore import Datastore, model_fingerprint, pool_fingerprint
from mmlib.tive.fill import fill
from mmlib.tive.gradients import gradient_pass
from tests.tive import models

SAMPLES = models.samples(9)
RECORDS = [Record(s.id, None, (Turn("human", "a"), Turn("gpt", s.id)), "t") for s in SAMPLES]


def test_a_killed_run_goes_on_to_the_same_store(tmp_path, monkeypatch):
    model, calls = models.with_lora(models.llama()), []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return gradient_pass(*args, **kwargs)

    monkeypatch.setattr(filling, "gradient_pass", dies)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a", model, RECORDS, SAMPLES, size=16, rows_per_shard=4)
    assert Datastore.open(tmp_path / "a").todo() == [1, 2]
    fill(tmp_path / "a", model, RECORDS, SAMPLES, size=16, rows_per_shard=4, numbers=[2])
    data = fill(tmp_path / "a", model, RECORDS, SAMPLES, size=16, rows_per_shard=4)
    assert len(calls) == 4 and data.todo() == [] and data.run.pool == pool_fingerprint(RECORDS)
    data.verify()
    made = gradient_pass(model, SAMPLES, size=16)
    units = made.vectors / np.linalg.norm(made.vectors, axis=1)[:, None]
    assert np.abs(np.concatenate([data.vectors(i) for i in range(3)]) - units).max() < 1e-3
    assert np.allclose(data.column("norm"), made.columns["norm"], rtol=1e-4)
    assert data.column("answers").tolist() == made.columns["answers"].tolist()


def test_another_model_pool_or_recipe_is_refused(tmp_path):
    model = models.with_lora(models.llama())
    fill(tmp_path, model, RECORDS, SAMPLES, size=16)
    before = model_fingerprint(model)
    with pytest.raises(UserError, match=r"belongs to another run .*recipe"):
        fill(tmp_path, model, RECORDS, SAMPLES, size=16, seed=1)
    fill(tmp_path, model, RECORDS, SAMPLES, size=16, tokens=50)
    with pytest.raises(UserError, match=r"belongs to another run .*pool"):
        fill(tmp_path, model, [*RECORDS[:-1], replace(RECORDS[-1], model="x")], SAMPLES, size=16)
    with pytest.raises(UserError, match="9 samples are not the 9 records in order"):
        fill(tmp_path, model, RECORDS[::-1], SAMPLES, size=16)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name)[0, 0] += 1e-3
    assert model_fingerprint(model) != before
    with pytest.raises(UserError, match=r"belongs to another run .*model"):
        fill(tmp_path, model, RECORDS, SAMPLES, size=16)


@pytest.mark.parametrize(("value", "first"), [(float("nan"), "s0"), (0.0, "s0")])
def test_broken_gradients_are_named_by_record(tmp_path, value, first):
    """NaN weights, and adapters of zeros whose gradients vanish on both sides."""
    model = models.with_lora(models.llama())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.fill_(value)
    with pytest.raises(UserError, match=f"gradient of 9 records is NaN, infinite or zero: {first}"):
        fill(tmp_path, model, RECORDS, SAMPLES, size=16)
    assert Datastore.open(tmp_path).todo() == [0]
