"""The small decoder: causal, position schemes against their definitions."""

from __future__ import annotations

import pytest
import torch

from mmlib.survey_llm import transformer as tf
from mmlib.survey_llm.transformer import Decoder, Shape


@pytest.mark.parametrize("positions", tf.SCHEMES)
def test_no_position_sees_the_future(positions):
    model = Decoder(Shape(positions=positions), seed=0)
    ids = torch.randint(0, 256, (2, 20))
    other = ids.clone()
    other[:, 12:] = 7
    a, b = model(ids)["logits"], model(other)["logits"]
    assert torch.allclose(a[:, :12], b[:, :12], atol=1e-5) and not torch.allclose(a[:, 12:], b[:, 12:], atol=1e-3)


def test_block_parameters_are_those_of_the_model():
    for feed_forward in (True, False):
        shape = Shape(width=48, layers=3, feed_forward=feed_forward)
        counted = sum(w.numel() for w in Decoder(shape, 0).blocks.parameters() if w.dim() > 1)
        assert counted == shape.block_parameters


def test_rotary_scores_depend_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 32, dtype=torch.float64)

    def score(i, j):
        return (tf.rotate(q, *tf.turns(i, i + 1, 32)) * tf.rotate(k, *tf.turns(j, j + 1, 32))).sum()

    assert torch.allclose(score(5, 2), score(105, 102), atol=1e-5)
    assert not torch.allclose(score(5, 2), score(5, 3), atol=1e-3)


def test_rotary_agrees_with_complex_multiplication():
    x, at = torch.randn(1, 1, 3, 8), torch.tensor([2.5, 3.0, 3.5])
    z = torch.complex(x[..., :4], x[..., 4:])
    turn = torch.polar(torch.ones(3, 4), at[:, None] * 10_000.0 ** (-torch.arange(4) / 4))
    got = tf.rotate(x, *tf.turns(5, 8, 8, scale=0.5))
    assert torch.allclose(torch.complex(got[..., :4], got[..., 4:]), z * turn, atol=1e-5)


def test_alibi_is_zero_at_home_and_falls_linearly():
    bias = tf.alibi_bias(5, 2)
    assert bias[0, 3, 3] == 0 and bias[0, 4, 1] == pytest.approx(-3 / 16) and bias[1, 4, 0] == pytest.approx(-4 / 256)


def test_buckets_as_in_t5():
    from transformers.models.t5.modeling_t5 import T5Attention

    length = 120
    relative = torch.arange(length)[None] - torch.arange(length)[:, None]  # key minus query
    expected = T5Attention._relative_position_bucket(relative, bidirectional=False, num_buckets=16, max_distance=64)
    assert torch.equal(tf.buckets(length), expected)


def test_without_positions_order_among_earlier_tokens_is_invisible_to_one_block():
    model = Decoder(Shape(positions="none", layers=1), seed=0)
    ids = torch.randint(0, 256, (1, 9))
    turned = ids.clone()
    turned[:, :8] = ids[:, :8].flip(1)
    assert torch.allclose(model(ids)["logits"][:, -1], model(turned)["logits"][:, -1], atol=1e-5)
    with_order = Decoder(Shape(positions="alibi", layers=1), seed=0)
    assert not torch.allclose(with_order(ids)["logits"][:, -1], with_order(turned)["logits"][:, -1], atol=1e-5)


def test_interpolation_halves_positions_and_ignored_labels_carry_no_loss():
    model = Decoder(Shape(), seed=0)
    ids = torch.randint(0, 256, (1, 16))
    assert torch.allclose(model(ids, scale=1.0)["logits"], model(ids)["logits"])
    assert not torch.allclose(model(ids, scale=0.5)["logits"], model(ids)["logits"], atol=1e-4)
    labels = torch.full((1, 16), tf.IGNORED)
    labels[0, 5] = 3
    loss = model(ids, labels)["loss"]
    assert torch.allclose(loss, -model(ids)["logits"].log_softmax(-1)[0, 5, 3])


@pytest.mark.parametrize("positions", tf.SCHEMES)
def test_tokens_read_in_parts_are_understood_as_if_read_at_once(positions):
    model, ids = Decoder(Shape(positions=positions), seed=0), torch.randint(0, 256, (2, 20))
    past, parts = {}, []
    for part in (ids[:, :7], ids[:, 7:8], ids[:, 8:]):
        parts.append(model(part, past=past)["logits"])
    assert torch.allclose(torch.cat(parts, 1), model(ids)["logits"], atol=1e-4)
    assert not torch.allclose(model(ids[:, 8:])["logits"], model(ids)["logits"][:, 8:], atol=1e-3), "without the past"


@pytest.mark.parametrize("positions", ["rope", "t5"])
def test_what_is_kept_from_a_look_may_be_trained_on(positions):
    model, ids = Decoder(Shape(positions=positions), seed=0), torch.randint(0, 256, (2, 23))
    with torch.inference_mode():
        model(ids)
    model(ids, ids)["loss"].backward()
    assert model.blocks[0].qkv.weight.grad.abs().sum() > 0
