"""Sanity checks that the fact sheet asks for (section 9.5), each with the fault that it would catch."""

from __future__ import annotations

import math

import pytest
import torch

from mmlib.metrics.retrieval import recall_at
from mmlib.survey_vlp.encoder import Encoder, Shape, contrast

SCHEMES = {
    "single": Shape(joint=2), "dual": Shape(width=48, joint=2, scheme="dual"),
    "cross": Shape(joint=2, image=1, scheme="cross"), "towers": Shape(text=1, image=1),
}  # fmt: skip


def batch(seed: int = 0, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(4, 30, (count, 7), generator=draw), torch.randn(count, 4, 432, generator=draw)


def test_the_initial_loss_of_random_vectors_is_ln_batch():
    draw = torch.Generator().manual_seed(0)
    said, shown = (torch.nn.functional.normalize(torch.randn(128, 64, generator=draw), dim=-1) for _ in range(2))
    assert contrast(said, shown, 1.0).item() == pytest.approx(math.log(128), abs=0.05)
    assert contrast(said[:1], shown[:1], 1.0).item() == 0, "a batch of one teaches nothing"
    assert contrast(said, shown, 20.0).item() > math.log(128) + 1, "planted fault: a temperature that is far too low"
    assert contrast(4 * said, 4 * shown, 1.0).item() > math.log(128) + 0.5, "planted fault: vectors without unit norm"
    assert contrast(said, said, 100.0).item() < 0.01


def test_identical_towers_retrieve_perfectly_and_collapsed_ones_at_chance():
    vectors = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert recall_at((vectors @ vectors.T).numpy(), 1).mean() == 1
    assert recall_at((vectors @ vectors.roll(1, 0).T).numpy(), 1).mean() < 0.2, "planted fault: pairs are off by one"
    same = vectors[:1].expand(50, 8)
    assert recall_at((same @ same.T).numpy(), 1).mean() == pytest.approx(1 / 50)


@pytest.mark.parametrize("name", ["single", "dual", "cross"])
@pytest.mark.parametrize("positions", [True, False])
def test_without_positions_the_order_of_patches_does_not_matter(name, positions):
    shape = SCHEMES[name]
    model = Encoder(Shape(**{**vars(shape), "positions": positions}), 0)
    ids, image = batch()
    with torch.inference_mode():
        moved = (model(ids, image)[0] - model(ids, image[:, [2, 0, 3, 1]])[0]).abs().max().item()
    assert moved > 1e-3 if positions else moved < 1e-5


@pytest.mark.parametrize("name", ["single", "dual", "cross"])
def test_a_masked_position_does_not_see_what_it_hides(name):
    model = Encoder(SCHEMES[name], 0)
    ids, image = batch()
    image.requires_grad_()
    hit = torch.zeros(3, 4).bool()
    hit[:, 1] = True
    text, picture = model(ids, torch.where(hit[..., None], model.embed_masked, image))
    (text.sum() + picture.sum()).backward()
    assert image.grad[:, 1].abs().max() == 0 and image.grad[:, 0].abs().max() > 0
    leaking = model(ids, image)  # planted fault: the mask is forgotten
    (leaking[0].sum() + leaking[1].sum()).backward()
    assert image.grad[:, 1].abs().max() > 0


@pytest.mark.parametrize("name", ["single", "cross"])
def test_causal_text_sees_the_picture_and_no_later_word(name):
    model = Encoder(SCHEMES[name], 0)
    ids, image = batch()
    later, other = ids.clone(), image.clone()
    later[:, 5], other[:, 2] = 3, 0
    with torch.inference_mode():
        base, changed, seen = (
            model(*inputs, causal=True)[0] for inputs in ((ids, image), (later, image), (ids, other))
        )
        open_base, open_changed = model(ids, image)[0], model(later, image)[0]
    assert (base[:, :5] - changed[:, :5]).abs().max() < 1e-5 < (base[:, 5:] - changed[:, 5:]).abs().max()
    assert (base[:, 0] - seen[:, 0]).abs().max() > 1e-4
    assert name == "cross" or (open_base[:, 0] - open_changed[:, 0]).abs().max() > 1e-4


def test_unseen_regions_and_padding_change_nothing():
    model = Encoder(SCHEMES["single"], 0)
    ids, image = batch()
    seen = torch.tensor([[True, True, False, True]]).expand(3, 4)
    other = image.clone()
    other[:, 2] = 7
    padded = torch.cat([ids, torch.zeros(3, 2).long()], 1)
    with torch.inference_mode():
        assert (model(ids, image, seen)[0] - model(ids, other, seen)[0]).abs().max() < 1e-5
        assert (model(ids, image)[0] - model(padded, image)[0][:, :7]).abs().max() < 1e-5
