"""V2 and V7: truth tables by brute force, losses against their definitions, planted faults that scores must show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmlib.errors import UserError
from mmlib.survey_vlp import records, towers

SETTINGS = {"seeds": [0, 1], "free_steps": 60, "width": 32, "scenes": 256, "steps": 2}


def test_truth_tables_by_brute_force():
    for name, rule in {
        "greater": lambda a, b: int("".join(map(str, a)), 2) > int("".join(map(str, b)), 2),
        "match": lambda a, b: a == b,
        "subset": lambda a, b: all(x >= y for x, y in zip(a, b, strict=True)),
        "parity": lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)) % 2 == 1,
    }.items():
        sets = [tuple(map(int, f"{i:06b}")) for i in range(64)]
        assert towers.truth(name).tolist() == [[rule(a, b) for b in sets] for a in sets], name


def test_free_vectors_order_in_one_dimension_and_fail_at_parity():
    right, weights = towers.free_vectors(towers.truth("greater"), 1, [0, 1], 200, False)
    assert right.shape == (2, 64) and right.mean() > 0.97 and weights == 2 * 64 + 1
    parity, _ = towers.free_vectors(towers.truth("parity"), 2, [0], 200, False)
    assert parity.mean() < 0.6
    assert not np.array_equal(right[0], towers.free_vectors(towers.truth("greater"), 1, [5], 3, False)[0][0])


def test_balanced_shares_give_a_constant_answer_one_half():
    """`match` is true in 1 of 64 cells: who always says no must score 50, not 98 percent."""
    table = towers.truth("match")
    weight = torch.where(table, 0.5 / table.sum(), 0.5 / (~table).sum())
    assert ((~table).float() * weight).sum().item() == pytest.approx(0.5)


def test_collapse_scores_chance_and_zero_uniformity():
    same = torch.ones(128, 4) / 2
    assert np.mean(towers.recall(same @ same.T)) == pytest.approx(1 / 128)
    assert towers.uniformity(same) == pytest.approx(0)
    spread = torch.nn.functional.normalize(torch.randn(128, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert towers.uniformity(spread) < -2 and np.mean(towers.recall(spread @ spread.T)) == 1


def test_groups_queue_and_wrong_captions(root):
    data = towers.pairs(128, 3)
    model = towers.Encoder(towers.Shape(32, text=1, image=1, length=9, heads={"to_text": 32, "to_image": 32}), 0)
    items = torch.arange(128)
    losses = {g: towers.Contrast(model, {"group": g}, data, 1)(items).item() for g in (1, 8, 128)}
    assert losses[1] == 0 and losses[8] == pytest.approx(math.log(8), abs=0.5) and losses[128] > losses[8]
    queued = towers.Contrast(model, {"group": 8, "queue": 256}, data, 1)
    first, second = queued(items).item(), queued(items).item()
    assert first == pytest.approx(losses[8], abs=1e-5) and second > first + 0.5 and len(queued.queue) == 256
    noisy = towers.pairs(128, 3, noise=0.5)
    changed = (noisy[1] != data[1]).any(1).float().mean().item()
    assert 0.35 < changed < 0.65 and torch.equal(noisy[0], data[0]) and torch.equal(noisy[2], data[2])


def test_momentum_targets_begin_as_one_hot(root):
    data = towers.pairs(128, 3)
    model = towers.Encoder(towers.Shape(32, text=1, image=1, length=9, heads={"to_text": 32, "to_image": 32}), 0)
    late = towers.Contrast(model, {"soft": 0.4}, data, 1_000_000)(torch.arange(128)).item()
    assert late == pytest.approx(towers.Contrast(model, {}, data, 1)(torch.arange(128)).item(), abs=1e-4)


def test_evidence_of_two_short_runs_and_a_lost_unit(root):
    runs = [towers.run({"arm": "128 pairs", "seed": s, "plan": {}, "settings": SETTINGS}) for s in (0, 1)]
    made = towers.contrast_evidence(runs)
    assert set(made["metrics"]["r1"]["values"]) == {"128 pairs", "chance"}
    assert records.levels(made, "r1").loc["chance", "value"] == pytest.approx(100 / 128, abs=1e-3)
    assert records.costs(runs).loc["128 pairs", "steps"] == SETTINGS["steps"]
    runs[1]["scores"]["r1"].pop()
    with pytest.raises(UserError, match="values for 128 units"):
        towers.contrast_evidence(runs)
