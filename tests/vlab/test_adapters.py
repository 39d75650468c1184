"""Every adapter starts as the image encoder, and can leave; what sees time, and how far."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.models.clip import pixels
from mmlib.vlab import adapters, clip_base
from mmlib.vlab.adapters import ADAPTERS, VideoEncoder
from tests.vlab.conftest import LAYERS, WIDTH

TRUE = [name for name in ADAPTERS if name != "none"]


def encoder(small_clip, name, **options):
    import copy

    torch.manual_seed(3)
    return VideoEncoder(copy.deepcopy(small_clip.vision_model), name, hidden=8, **options).eval()


def seen(images, count=2):
    return torch.stack([pixels(clip) for clip in images[:count]])  # (B, T, 3, H, W)


def nudged(model):
    """The adapters moved away from their start."""
    for parameter in model.adapters.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    return model


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("position", adapters.POSITIONS)
def test_step_0_is_the_image_encoder(name, position, small_clip, images):
    """Oracle: transformers' own vision model, frame by frame, with its last LayerNorm on all tokens."""
    model, x = encoder(small_clip, name, position=position), seen(images)
    with torch.inference_mode():
        made = model(model.embed(x))
        vision = small_clip.vision_model
        wanted = vision.post_layernorm(vision(pixel_values=x.flatten(0, 1)).last_hidden_state)
        torch.testing.assert_close(made.flatten(0, 1), wanted, atol=1e-5, rtol=1e-5)
        pooled = vision(pixel_values=x.flatten(0, 1)).pooler_output
        torch.testing.assert_close(made[:, :, 0].flatten(0, 1), pooled, atol=1e-5, rtol=1e-5)
        if name != "none":
            assert (nudged(model)(model.embed(x)) - made).abs().max() > 1e-3


@pytest.mark.parametrize("name", TRUE)
def test_exactly_one_factor_is_zero_and_it_has_a_gradient(name, small_clip, images):
    model = encoder(small_clip, name)
    model.zero_grad()
    model(model.embed(seen(images))).square().sum().backward()
    for key, adapter in model.adapters.items():
        # AIM has three products in a block, the others one.
        for part in [adapter.time, adapter.space, adapter.joint] if name == "aim" else [adapter]:
            factors = [m.weight for m in part.modules() if hasattr(m, "weight") and m.weight.dim() > 1]
            zero = [weight for weight in factors if not weight.any()]
            assert len(zero) == 1 and len(factors) >= 2, key
            last = key == max(model.adapters)
            # The convolution of the last block reaches CLS through that block's attention: it has a gradient, too.
            assert zero[0].grad.abs().max() > 0, (key, last)


def test_two_zero_factors_would_never_move(small_clip, images):
    """The planted fault of the rule above."""
    model = encoder(small_clip, "mlp")
    for adapter in model.adapters.values():
        adapter.down.weight.data.zero_()
    model(model.embed(seen(images))).square().sum().backward()
    assert not any(p.grad.any() for a in model.adapters.values() for p in (a.down.weight, a.up.weight))


@pytest.mark.parametrize("name", ["tconv", "st3d"])
def test_convolution_is_pytorchs_own(name):
    torch.manual_seed(0)
    adapter = adapters.build_adapter(name, 12, 6)
    torch.nn.init.normal_(adapter.conv.weight)
    torch.nn.init.normal_(adapter.conv.bias)
    x = torch.randn(2, 5, 9, 6)
    volume = x.permute(0, 3, 1, 2).reshape(2, 6, 5, 3, 3)
    wanted = adapter.conv(volume).reshape(2, 6, 5, 9).permute(0, 2, 3, 1)
    torch.testing.assert_close(adapter.operate(x), wanted)
    whole = torch.randn(2, 5, 10, 12)
    assert not adapter.change(whole)[:, :, 0].any(), "CLS is left alone"


@pytest.mark.parametrize(("name", "reach"), [("mlp", 0), ("tconv", 1), ("st3d", 1), ("tattn", 7), ("aim", 7)])
def test_how_far_one_block_sees_in_time(name, reach, small_clip, images):
    """Changing frame 0 changes the patches of frames 0 to `reach` and no other."""
    model, x = nudged(encoder(small_clip, name, blocks=[0])), seen(images, 1)
    other = x.clone()
    other[:, 0] += 0.5
    with torch.inference_mode():
        moved = (model(model.embed(x)) - model(model.embed(other))).abs().amax((0, 2, 3))
    assert [t for t in range(8) if moved[t] > 1e-5] == list(range(reach + 1))


@pytest.mark.parametrize("name", TRUE)
def test_order_of_frames_matters_only_to_adapters_over_time(name, small_clip, images):
    model, x = nudged(encoder(small_clip, name)), seen(images)
    with torch.inference_mode():
        backward = model(model.embed(x.flip(1))).flip(1)
        same = torch.allclose(model(model.embed(x)), backward, atol=1e-5)
    assert same == (name == "mlp")


def test_frozen_lower_blocks_are_the_same_computed_once(small_clip, images):
    model = nudged(encoder(small_clip, "tconv", blocks=[1]))
    with torch.inference_mode():
        lower = clip_base.lower_features(small_clip, images[:2], model.first)
        torch.testing.assert_close(model(lower, model.first), model(model.embed(seen(images))), atol=1e-5, rtol=1e-5)


def test_names_of_clips_weights_stay(small_clip):
    """So a checkpoint of transformers loads unchanged."""
    model = encoder(small_clip, "tconv")
    own = {f"vision.{name}" for name in small_clip.vision_model.state_dict()}
    assert own == {name for name in model.state_dict() if not name.startswith("adapters.")}


def test_parameters_follow_the_formula(small_clip):
    """2 D d + (kernel volume + 2) d + D per convolutional adapter (592,512 at B/16's size)."""
    for name, volume in (("tconv", 3), ("st3d", 27)):
        count = sum(p.numel() for p in adapters.build_adapter(name, WIDTH, 8).parameters())
        assert count == 2 * WIDTH * 8 + (volume + 2) * 8 + WIDTH
    assert sum(p.numel() for p in adapters.build_adapter("tconv", 768, 384).parameters()) == 592_512


@pytest.mark.parametrize(("policy", "trained"), [("all_but_adapter", False), ("clip_small_lr", True), ("none", True)])
def test_policies_of_freezing(policy, trained, small_clip):
    model = encoder(small_clip, "tconv")
    adapters.freeze(model, policy)
    assert all(p.requires_grad == trained for p in model.vision.parameters())
    assert all(p.requires_grad for p in model.adapters.parameters())


def test_bad_names_are_named(small_clip):
    with pytest.raises(UserError, match="unknown adapter `lora`"):
        encoder(small_clip, "lora")
    with pytest.raises(UserError, match="unknown place of an adapter `after`"):
        encoder(small_clip, "mlp", position="after")
    with pytest.raises(UserError, match=f"no block 7 in an encoder of {LAYERS}"):
        encoder(small_clip, "mlp", blocks=[7])
    with pytest.raises(UserError, match="unknown policy of freezing `half`"):
        adapters.freeze(encoder(small_clip, "mlp"), "half")
