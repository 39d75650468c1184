"""Parameter-efficient tuning: who is trained, that the start is the base, that a merged LoRA says the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.survey_llm import efficient as m

SETTINGS = {"peft_width": 32, "peft_batch": 2, "peft_base_steps": 1, "peft_windows": 4}


@pytest.fixture(scope="module")
def base():
    source = np.frombuffer(b"all work and no play makes jack a dull boy. " * 20, np.uint8)
    return m.base_model(source, SETTINGS, seed=0)


@pytest.fixture(scope="module")
def rows():
    return torch.randint(0, 256, (3, m.LENGTH + 1), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["full", "LoRA 2", "adapter", "head"])
def test_tuning_begins_at_the_base(base, rows, method):
    assert np.allclose(m.losses(m.equipped(base, method, 0), rows), m.losses(base, rows), atol=1e-5)


def test_weights_that_are_tuned(base):
    width, inner = 32, 96
    stored = {method: m.stored_weights(m.equipped(base, method, 0), method) for method in m.METHODS}
    assert stored["full"] == base.num_parameters() and stored["head"] == 256 * width
    assert stored["LoRA 2"] == 2 * 2 * (4 * 2 * width + 3 * (width + inner)) == 2 * stored["LoRA 1"]
    assert stored["prompt"] == m.VIRTUAL * width and stored["prefix"] == m.VIRTUAL * 2 * 2 * width
    assert stored["adapter"] == 4 * (2 * width * m.BOTTLENECK + m.BOTTLENECK + width)


@pytest.mark.parametrize("method", m.METHODS)
def test_only_what_the_method_tunes_moves(base, rows, method):
    model = m.equipped(base, method, 0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    source = np.frombuffer(bytes(range(256)) * 4, np.uint8)
    m.fitted(model, source, 2, SETTINGS, 0.01, seed=0)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved and moved <= {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert m.losses(model, rows).shape == (3,)


def test_a_merged_lora_says_the_same(base, rows):
    model = m.equipped(base, "LoRA 8", 0)
    m.fitted(model, np.frombuffer(bytes(range(256)) * 4, np.uint8), 2, SETTINGS, 0.05, seed=0)
    apart = m.losses(model, rows)
    assert np.abs(apart - m.losses(base, rows)).max() > 1e-3, "the adapter does something"
    assert np.abs(m.losses(model.merge_and_unload(), rows) - apart).max() < 1e-5


def test_no_held_out_line_stands_in_training(tmp_path, monkeypatch):
    shared, texts = ">>> shared = line_of_code(1)", {}
    texts["calibration"] = [f"{shared}\nprose number {i} of them all\n>>> call(argument={i})" for i in range(40)]
    monkeypatch.setattr(m.text, "documents", lambda root, part: texts.get(part, []))
    for kind, (known, held) in m.domains(tmp_path).items():
        lines = [bytes(part).decode().split("\n") for part in (known, held)]
        assert lines[1] and not set(lines[0]) & set(lines[1]), kind
        assert all(line.startswith(">>>") == (kind == "code") for part in lines for line in part)


def test_evidence_has_shares_of_the_full_gain():
    scores = {"base": [3.0, 3.2]} | {method: [2.0, 2.2] for method in m.METHODS}
    made = m.as_evidence([{"seed": 0, "scores": {"code": scores, "prose": scores}}], {"peft_windows": 2})
    assert made["metrics"]["gain"]["values"]["half of full"]["0"] == [0.5, 0.5]
