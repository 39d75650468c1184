"""Recall and sums against cases worked out by hand; attention against the block's own; sudden and smooth rises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.survey_llm import emergence as m
from mmlib.survey_llm.transformer import IGNORED, Decoder, Shape


def test_recall_asks_every_pair_that_it_showed_and_nothing_else():
    tokens, labels = m.recall(20, seed=0)
    for row, label in zip(tokens.tolist(), labels.tolist(), strict=True):
        half = 2 * m.PAIRS
        shown = dict(zip(row[:half:2], row[1:half:2], strict=True))
        assert len(shown) == m.PAIRS == len(set(shown.values())) and max(shown) < m.KEYS <= min(shown.values())
        asked = [(row[i], label[i]) for i in range(len(row)) if label[i] != IGNORED]
        assert asked == list(zip(row[half::2], row[half + 1 :: 2], strict=True)) and dict(asked) == shown


def test_sums_are_right_lowest_digit_first():
    tokens, labels = m.addition(50, seed=0)
    for row, label in zip(tokens.tolist(), labels.tolist(), strict=True):
        number = lambda digits: int("".join(map(str, digits[::-1])))  # noqa: E731
        answer = [v for v in label if v != IGNORED]
        assert row[3] == m.PLUS and row[7] == m.EQUALS and len(answer) == m.ANSWER
        assert number(row[:3]) + number(row[4:7]) == number(answer)
        assert row[8:] == answer[:-1], "the digits before are given, the last one is not"


def test_measures_of_a_model_that_is_always_right_but_for_one_answer():
    tokens, labels = m.addition(4, seed=1)

    def model(ids):
        logits = torch.nn.functional.one_hot(labels.clamp(min=0), m.EQUALS + 1).float() * 50
        logits[0, -1] = logits[0, -1].roll(1)
        return {"logits": logits}

    found = m.measure(model, tokens, labels)
    assert found["exact"].tolist() == [0, 1, 1, 1] and found["part"].tolist() == [0.75, 1, 1, 1]
    assert found["nats"][0] == pytest.approx(50 / 4, rel=1e-3) and found["nats"][1] < 1e-6


def test_attention_is_that_of_the_blocks():
    """What the weights give, taken through values and output, is what the block adds without its feed-forward part."""
    model = Decoder(Shape(2 * m.KEYS, 32, 2, head=16, feed_forward=False), seed=0).eval()
    tokens, _ = m.recall(3, seed=0)
    weights = m.attention(model, tokens)
    x = model.embedding(tokens)
    for block, part in zip(model.blocks, weights, strict=True):
        values = block.qkv(block.before_attention(x)).unflatten(-1, (3, -1, 16)).permute(2, 0, 3, 1, 4)[2]
        x = x + block.out((part @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(model.head(model.norm(x)), model(tokens)["logits"], atol=1e-4)
    assert torch.allclose(weights[1].sum(-1), torch.ones(3, 2, tokens.shape[1])) and not weights[0].triu(1).any()


def test_induction_score_sees_a_head_that_looks_after_the_same_token(monkeypatch):
    tokens, _ = m.recall(5, seed=0)
    ideal = torch.zeros(5, 1, 4 * m.PAIRS, 4 * m.PAIRS)
    for b, row in enumerate(tokens.tolist()):
        for at in range(2 * m.PAIRS, 4 * m.PAIRS, 2):
            ideal[b, 0, at, row.index(row[at]) + 1] = 1
    monkeypatch.setattr(m, "attention", lambda model, tokens: [torch.full_like(ideal, 1 / 32), ideal])
    assert m.induction_score(None, tokens) == 1
    monkeypatch.setattr(m, "attention", lambda model, tokens: [ideal.roll(-1, -1)])
    assert m.induction_score(None, tokens) == 0, "the same token itself is not what followed it"


def test_largest_step():
    assert m.largest_step([0, 0, 1, 1]) == 1 and m.largest_step([3, 2, 1]) == 0.5
    assert m.largest_step([1.0, 0.5, 0.6, 0.0]) == pytest.approx(0.6 / 1.1), "a change back is no step"
    assert m.largest_step([0.0, 0.0, 0.8, 0.01]) == 1, "never more than all"


def test_interior_points_and_their_power():
    results = [{"task": "addition", "arm": "width 8", "seed": 0, "scores": {"exact": [1, 0], "part": [1.0, 0.5]}}]
    run = {"steps": 9, "seed": 1}
    parity = [
        {"style": "scratchpad", **run, "chain": {"4": 0.95, "8": 0.4}, "step": {"4": 0.9, "8": 0.9}},
        {"style": "direct", **run, "chain": {}, "step": {}},
    ]
    points = m.chains(results, parity)
    assert [round(p, 4) for _, _, p in points] == [0.3164, 0.6561, 0.4305]
    assert [name.split(",")[0] for name, _, _ in m.interior(points)] == ["addition", "parity"]


def test_a_watched_model_trains_as_before_and_is_seen_at_the_marks():
    from mmlib.survey_llm.training import train

    data, losses = m.recall(32, seed=0), []
    for watch in (False, True):
        model = Decoder(m.shape("recall", 16, 1), seed=0)
        module = m.watched(model, [0, 4], lambda: {"seen": 1.0}) if watch else model
        train(module, *data, batch=8, learning_rate=0.003, seed=0, muon_learning_rate=0.02)
        losses.append(m.measure(model, *data)["nats"])
    assert (losses[0] == losses[1]).all()
    assert module.curve == [{"step": 0, "seen": 1.0}], "four steps: 0 to 3"


def test_one_wide_layer_has_no_fewer_weights_than_two():
    settings = {"recall_width": 32, "addition_widths": [16], "seeds": [0]}
    size = {arm: m.shape(task, width, layers).block_parameters for task, arm, width, layers in m.arms(settings)}
    assert size["1 layer, wider"] >= size["2 layers"] == 2 * size["1 layer"]
    assert len({shard["name"] for shard in m.shards(settings)}) == 4 and np.isfinite(m.SHARE)
