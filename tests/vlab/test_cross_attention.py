"""The mask, blending, and who can see the order of frames at all."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mmlib.errors import UserError
from mmlib.models.cross_attention import Attention, Layer, MultimodalEncoder, VisualTokens, sequence_mask
from mmlib.vlab import model as models
from mmlib.vlab.model import (
    BRANCHES,
    TWIN_NOISE,
    Arm,
    Vlab,
    blended,
    contrastive_loss,
    match_loss,
    pair_loss,
    word_loss,
)
from tests.vlab.conftest import WIDTH

PAD = 0


def test_the_mask_has_two_parts():
    text = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    prompt = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    mask = sequence_mask(text, prompt, torch.tensor([True, False]))[:, 0]
    generative = [
        "1000110",  # text sees its past and the whole prompt
        "1100110",
        "1110110",
        "1111110",  # padding sees itself: softmax over nothing is NaN
        "0000110",  # a prompt does not see the text
        "0000110",
        "0000111",
    ]
    assert ["".join(map(str, row)) for row in mask[0].int().tolist()] == generative
    assert mask[1].all()


def encoder(blend="single", seed=0):
    torch.manual_seed(seed)
    return MultimodalEncoder(40, WIDTH, 2, 4, blend).eval()


IDS = torch.tensor([[[1, 7, 8, 9, 3]]])
PROMPT = torch.tensor([[[1, 20, 21, 3]]])


def changed(causal, place, prompt=PROMPT, **options):
    """Which text vectors move when the word at `place` is exchanged."""
    model, other = encoder(), IDS.clone()
    other[..., place] = 30
    flag = torch.tensor([[causal]])
    with torch.inference_mode():
        moved = (model(IDS, prompt, flag, PAD, **options) - model(other, prompt, flag, PAD, **options)).abs().amax(-1)
    return [i for i in range(5) if moved[0, 0, i] > 1e-6]


def test_generation_does_not_see_the_future_and_reading_does():
    assert changed(True, 3) == [3, 4]
    assert changed(False, 3) == [0, 1, 2, 3, 4]
    assert changed(True, 0) == [0, 1, 2, 3, 4]


def test_padding_of_text_and_prompt_changes_nothing():
    model, flag = encoder(), torch.tensor([[True]])
    padded = functional.pad(IDS, (0, 3)), functional.pad(PROMPT, (0, 2))
    with torch.inference_mode():
        torch.testing.assert_close(model(*padded, flag, PAD)[:, :, :5], model(IDS, PROMPT, flag, PAD))


def test_attention_is_pytorchs_own():
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]).detach()
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]).detach()
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, seen, mask = torch.randn(2, 3, 16), torch.randn(2, 5, 16), torch.rand(3, 5) > 0.3
    mask[:, 0] = True
    wanted = theirs(x, seen, seen, attn_mask=~mask)[0]
    torch.testing.assert_close(ours(x, seen, mask), wanted)


def oracle(layer, h, streams):
    """Blending as the equations of VALOR's two-stream layers, term by term."""

    def ca(name, x, seen):
        return layer.cross[name](x, seen)

    norm, video, image = layer.cross_norm, streams["video"], streams["image"]
    if layer.blend == "concat":
        return norm["shared"](h + ca("shared", h, torch.cat([video, image], 1)))
    if layer.blend == "parallel":
        return norm["video"](h + ca("video", h, video)) + norm["image"](h + ca("image", h, image))
    first, second = ("video", "image") if layer.blend == "stacked_vi" else ("image", "video")
    middle = norm[first](h + ca(first, h, streams[first]))
    return norm[second](middle + ca(second, middle, streams[second]))


@pytest.mark.parametrize("blend", ["concat", "parallel", "stacked_vi", "stacked_iv"])
def test_blending_follows_its_equation(blend):
    torch.manual_seed(1)
    layer = Layer(WIDTH, 4, blend)
    h = torch.randn(2, 6, WIDTH)
    streams = {"video": torch.randn(2, 9, WIDTH), "image": torch.randn(2, 9, WIDTH)}
    torch.testing.assert_close(layer._blend(h, streams), oracle(layer, h, streams))
    swapped = {"video": streams["image"], "image": streams["video"]}
    same = torch.allclose(layer._blend(h, swapped), layer._blend(h, streams), atol=1e-5)
    assert same == (blend == "concat"), "only keys of one attention have no roles"


def model(small_clip, **options):
    return Vlab(small_clip, Arm(hidden=8, **options), PAD, 0).eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_controls_have_as_many_parameters_as_what_they_control(small_clip):
    sizes = {name: count(model(small_clip, branches=name).fusion) for name in BRANCHES}
    assert sizes["parallel"] == sizes["video+video"] == sizes["image+image"] == sizes["stacked_vi"]
    assert sizes["stacked_vi"] == sizes["stacked_iv"] > sizes["concat"] == sizes["video"] == sizes["image"]


def scores(net, tokens):
    with torch.inference_mode():
        words = net.word_scores({"video": tokens}, IDS, PROMPT, torch.tensor([[True]]))
        ids = torch.tensor([[1, 7, 3]])
        return words, net.similarity({"video": tokens}, ids, torch.ones_like(ids))


@pytest.mark.parametrize(
    ("name", "options", "blind"),
    [
        ("b0", {"pool": True, "frame_embedding": False}, True),
        ("b1", {"frame_embedding": False}, True),
        ("b2", {}, False),
    ],
)
def test_b0_and_b1_are_blind_to_order_and_b2_is_not(name, options, blind, small_clip):
    net = model(small_clip, **options)
    tokens = torch.randn(1, 8, 17, WIDTH)
    (words, sims), (permuted, permuted_sims) = scores(net, tokens), scores(net, tokens[:, torch.randperm(8)])
    assert torch.allclose(words, permuted, atol=1e-5) == blind
    torch.testing.assert_close(sims, permuted_sims)  # the pooled feature of frames never sees order


def test_similarity_of_two_branches_is_the_weighted_sum_of_single_ones(small_clip):
    net = model(small_clip, branches="parallel")
    seen = {name: torch.randn(2, 8, 17, WIDTH) for name in ("video", "image")}
    ids = torch.tensor([[1, 7, 3], [1, 9, 3]])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        single = {}
        for share, name in ((1.0, "video"), (0.0, "image")):
            net.share.data.fill_(share)
            single[name] = net.similarity(seen, ids, mask)
        net.share.data.fill_(0.3)
        torch.testing.assert_close(net.similarity(seen, ids, mask), 0.3 * single["video"] + 0.7 * single["image"])


def test_contrastive_loss_is_transformers_own(small_clip):
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    logits = torch.randn(6, 6)
    torch.testing.assert_close(contrastive_loss(logits), image_text_contrastive_loss(logits))


def test_pair_loss_is_the_contrastive_loss_of_every_pair():
    logits = torch.randn(6, 6)
    blocks = [contrastive_loss(logits[i : i + 2, i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(pair_loss(logits), torch.stack(blocks).mean())


def test_match_loss_is_the_pair_loss_of_the_same_scores():
    scores = torch.randn(6, 6)
    number = torch.arange(6)
    two = torch.stack([scores[number, number], scores[number ^ 1, number]], 1)  # clip with own, with the other's text
    torch.testing.assert_close(match_loss(two), pair_loss(scores))


def test_match_scores_are_those_of_one_text_at_a_time(small_clip):
    """And they see the order of frames, which the average that `pair` compares does not."""
    net, tokens = model(small_clip), torch.randn(2, 8, 17, WIDTH)
    caption = torch.tensor([[1, 7, 9, 3], [1, 8, 3, PAD]])
    with torch.inference_mode():
        made = net.match_scores({"video": tokens}, caption)
        reversed_ = net.match_scores({"video": tokens.flip(1)}, caption)
        for clip, text, place in ((0, 0, (0, 0)), (0, 1, (0, 1)), (1, 0, (1, 1)), (1, 1, (1, 0))):
            one = (caption[text][None, None], caption[text][None, None, :1], torch.tensor([[False]]), PAD)
            read = net.fusion(*one, net.streams({"video": tokens[clip, None]}))
            torch.testing.assert_close(net.match(read[0, 0, 0])[0], made[place], atol=1e-5, rtol=1e-5)
    assert (made - reversed_).abs().max() > 1e-4


def twins(net):
    """Largest difference between the two cross-attentions of any layer."""
    pairs = ((layer.cross["video"].parameters(), layer.cross["image"].parameters()) for layer in net.fusion.layers)
    return max((a - b).abs().max().item() for one, two in pairs for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", ["video+video", "image+image"])
@pytest.mark.parametrize("noise", [TWIN_NOISE, 0.0])
def test_twin_branches_go_ways_of_their_own(name, noise, small_clip, monkeypatch):
    """Planted fault: without the noise they stay equal to the bit, and the control has one branch."""
    monkeypatch.setattr(models, "TWIN_NOISE", noise)
    net = blended(model(small_clip, adapter="tconv", blocks=(1,)), small_clip, name, 0)
    before = [p.detach().clone() for layer in net.fusion.layers for p in layer.cross.parameters()]
    seen = {branch: torch.randn(2, 8, 17, WIDTH) for branch in set(net.slots.values())}
    labels = torch.full((2, 1, 5), -100)
    labels[..., 2] = 8
    optimizer = torch.optim.AdamW(net.fusion.layers.parameters(), 1e-3)
    text, prompt = IDS.expand(2, -1, -1), PROMPT.expand(2, -1, -1)
    net(text, prompt, torch.ones(2, 1).bool(), labels, torch.ones(2, 1) / 2, **seen)["loss"].backward()
    optimizer.step()
    moved = [
        p - old
        for p, old in zip((p for layer in net.fusion.layers for p in layer.cross.parameters()), before, strict=True)
    ]
    half = len(moved) // 4  # parameters of one cross-attention: two layers, two each
    apart = max((a - b).abs().max().item() for a, b in zip(moved[:half], moved[half : 2 * half], strict=True))
    assert (apart > 0) == (twins(net) > 0) == (noise > 0)


def test_word_loss_is_a_weighted_mean_of_sequence_means():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 4, 9), torch.full((2, 2, 4), -100)
    labels[0, 0, 1:3], labels[0, 1, 2], labels[1, 0, 0] = torch.tensor([3, 4]), 5, 6
    weight = torch.tensor([[0.5, 0.25], [0.25, 7.0]])
    asked = ((0, 0), (0, 1), (1, 0))
    each = [functional.cross_entropy(logits[b, q], labels[b, q], ignore_index=-100) for b, q in asked]
    wanted = 0.5 * each[0] + 0.25 * each[1] + 0.25 * each[2]  # nothing is asked in the last sequence: no NaN
    torch.testing.assert_close(word_loss(logits, labels, weight), wanted)


def test_projection_only_where_widths_differ():
    assert count(VisualTokens(WIDTH, WIDTH).project) == 0
    assert VisualTokens(24, WIDTH)(torch.randn(2, 8, 17, 24)).shape == (2, 8 * 17, WIDTH)
    assert VisualTokens(24, WIDTH, pool=True)(torch.randn(2, 8, 17, 24)).shape == (2, 17, WIDTH)


def test_unknown_forms_are_named(small_clip):
    with pytest.raises(UserError, match="unknown form of blending `gate`"):
        encoder("gate")
    with pytest.raises(UserError, match="unknown branches `both`"):
        model(small_clip, branches="both")


@pytest.mark.parametrize("name", BRANCHES)
def test_stage_2_starts_where_stage_1_ended(name, small_clip):
    """Equal streams: concatenated keys, or one attention, give stage 1's own words; a stacked second one need not."""
    stage1 = model(small_clip, adapter="tconv", blocks=(1,))
    for parameter in stage1.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    net = blended(stage1, small_clip, name, 0)
    tokens = torch.randn(2, 8, 17, WIDTH)
    ids, prompt = IDS.expand(2, -1, -1), PROMPT.expand(2, -1, -1)
    asked = (ids, prompt, torch.tensor([[True], [True]]))
    with torch.inference_mode():
        wanted = stage1.word_scores({"video": tokens}, *asked)
        made = net.word_scores({"video": tokens, "image": tokens, "other": tokens}, *asked)
    if name in ("video", "image", "concat"):
        torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)
    else:
        layer = net.fusion.layers[0]
        for part in ("query", "key", "value", "out"):
            first, second = (getattr(layer.cross[stream], part).weight for stream in ("video", "image"))
            assert torch.equal(first, getattr(stage1.fusion.layers[0].cross["shared"], part).weight)
            apart = ((second - first).std() / first.std()).item()
            assert apart == pytest.approx(TWIN_NOISE, rel=0.15), "the second starts beside the first, in every form"
    assert torch.equal(
        net.video.vision.state_dict()["post_layernorm.weight"],
        stage1.video.vision.state_dict()["post_layernorm.weight"],
    )
    assert not any(p.requires_grad for p in net.video.parameters())
