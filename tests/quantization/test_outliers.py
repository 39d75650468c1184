"""INT8 activations against integer arithmetic written out, and the choice of outlier dimensions."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import outlier_arms, outliers
from mmlib.quantization.model import linears


@pytest.mark.parametrize("scale", outliers.SCALES)
def test_one_linear_equals_the_integer_product_of_llm_int8(tiny_llama, scale):
    generator = torch.Generator().manual_seed(1)
    linear = tiny_llama.model.layers[0].mlp.down_proj
    x = torch.randn(5, 128, generator=generator)
    x[:, 7] *= 30  # an outlier dimension
    rest = [d for d in range(128) if d != 7]
    kept = {"ffn-out": [7]}

    # The definition, in 64-bit integers: scales over the rounded dimensions only.
    weight, inputs = linear.weight.double(), x.double()
    w_scale = weight[:, rest].abs().amax(1) / 127  # (out,)
    x_scale = (inputs[:, rest].abs().amax(1) if scale == "token" else inputs[:, rest].abs().amax().expand(5)) / 127
    w8 = (weight[:, rest] / w_scale[:, None]).round().long()
    x8 = (inputs[:, rest] / x_scale[:, None]).round().long()
    assert w8.abs().max() <= 127 and x8.abs().max() <= 127
    expected = (x8 @ w8.T) * x_scale[:, None] * w_scale + inputs[:, [7]] @ weight[:, [7]].T

    with outliers.int8_activations(tiny_llama, kept, scale):
        result = linear(x)
    assert torch.allclose(result.double(), expected, atol=1e-5)
    with outliers.int8_activations(tiny_llama, {}, scale):
        spoiled = linear(x)
    exact = inputs @ weight.T
    assert (spoiled - exact).norm() > 3 * (result - exact).norm(), "an outlier in the scale must cost precision"


def test_weights_and_hooks_are_restored_even_after_an_error(tiny_llama):
    ids = torch.arange(12)[None]
    before = tiny_llama(ids).logits
    with pytest.raises(RuntimeError), outliers.int8_activations(tiny_llama, {}, "token"):
        assert not torch.equal(tiny_llama(ids).logits, before)
        raise RuntimeError
    assert torch.equal(tiny_llama(ids).logits, before)


def test_keeping_every_dimension_changes_nothing(tiny_llama):
    ids = torch.arange(12)[None]
    widths = {outliers.site(name): linear.in_features for name, linear in linears(tiny_llama).items()}
    with outliers.int8_activations(tiny_llama, {key: list(range(width)) for key, width in widths.items()}):
        kept = tiny_llama(ids).logits
    assert torch.allclose(kept, tiny_llama(ids).logits, atol=1e-6)


def test_the_largest_activations_are_those_of_each_linear_s_input(tiny_llama):
    ids = torch.arange(24).reshape(2, 12)
    seen = {}
    hook = tiny_llama.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda m, x: seen.update(x=x[0]))
    found = outliers.largest_activations(tiny_llama, ids)
    hook.remove()
    assert {key: tuple(rows.shape) for key, rows in found.items()} == {
        "attention-in": (3, 64), "attention-out": (3, 64), "ffn-in": (3, 64), "ffn-out": (3, 128),
    }  # fmt: skip
    assert torch.equal(found["ffn-out"][1], seen["x"].abs().reshape(-1, 128).amax(0))


def test_outliers_are_ranked_by_the_number_of_layers_they_affect():
    rows = torch.zeros(4, 6)
    rows[:2, 3], rows[0, 1], rows[:3, 5], rows[0, 0] = 7.0, 9.0, 6.0, 5.9
    largest = {"ffn-in": rows, "attention-in": torch.zeros(4, 6)}
    ranked = outliers.ranked_outliers(largest, 6.0, ("attention-in", "ffn-in"))
    assert ranked == [("ffn-in", 5), ("ffn-in", 3), ("ffn-in", 1)]
    assert outliers.ranked_outliers(largest, 6.0, ("attention-in",)) == []
    assert len(outliers.ranked_outliers(largest, 5.0, ("ffn-in",))) == 4


def test_moved_dimensions_are_rounded_and_random_ones_avoid_the_top():
    ranked = [("ffn-in", d) for d in range(9)]
    moved = outliers.moved_sets(ranked, seed=0)
    assert moved["top1"] == ranked[:1] and moved["top3"] == ranked[:3] and moved["non-outlier"] == []
    assert len(moved["random3"]) == 3 and not set(moved["random3"]) & set(ranked[:3])
    assert outliers.moved_sets(ranked, seed=1)["random3"] != moved["random3"]
    kept = outliers.kept_dims(ranked, moved["top3"])
    assert kept["ffn-in"] == list(range(3, 9)) and kept["ffn-out"] == []
    assert outliers.kept_dims(ranked, ranked)["ffn-in"] == []


def test_too_few_others_are_an_error_and_not_a_smaller_draw():
    ranked = [("ffn-in", d) for d in range(6)]
    assert sorted(outliers.moved_sets(ranked, seed=0)["random3"]) == ranked[3:]
    with pytest.raises(UserError, match="5 outliers: no 3 others can be drawn beside the first 3; lower the threshold"):
        outliers.moved_sets(ranked[:5], seed=0)


def test_an_unknown_scale_is_named(tiny_llama):
    with (
        pytest.raises(UserError, match="unknown activation scale `row`"),
        outliers.int8_activations(tiny_llama, {}, "row"),
    ):
        pass


def test_cases_name_scale_sites_and_threshold():
    case = outlier_arms.parse_case("token/residual/4.5")
    assert (case.scale, case.sites, case.threshold, case.name) == ("token", "residual", 4.5, "token-residual4.5")
    for wrong in ("residual/4", "token/residual", "token/everywhere/6", "token/all/x", "row/all/6"):
        with pytest.raises(UserError, match="unknown outlier case"):
            outlier_arms.parse_case(wrong)


SETTINGS = {"calibration_seeds": [0, 1], "text_windows": 1, "tasks": ["antonym"], "icl_items": 2, "shots": 1,
            "choices": 2}  # fmt: skip


def test_every_arm_is_measured_once_per_seed():
    made = outlier_arms.shards(["token/residual/4", "tensor/residual/4"], ["token/residual/4"], SETTINGS)
    assert [shard["name"] for shard in made] == ["tensor/seed0", "tensor/seed1", "token/seed0", "token/seed1", "bare"]
    more = outlier_arms.shards(["tensor/all/4", "token/all/4", "token/all/5"], [], SETTINGS)
    assert [shard["name"] for shard in more[::2]] == ["token/seed0", "tensor/seed0", "bare"], "the longest first"
    scores = {"nll": [1.0], "kl": [0.0], "top1": [1.0]}
    results = [{"arms": {"token-residual4-top3": scores}, "seed": seed} for seed in (0, 1)]
    results.append({"arms": {"16-bit": {**scores, "icl_em": [1.0, 0.0]}}, "seed": None})
    evidence = outlier_arms.as_evidence(results, SETTINGS)
    assert evidence["metrics"]["nll"]["values"] == {"token-residual4-top3": {"0": [1.0], "1": [1.0]},
                                                    "16-bit": {"-": [1.0]}}  # fmt: skip
    assert evidence["metrics"]["icl_em"]["values"] == {"16-bit": {"-": [1, 0]}} and evidence["items"]["antonym"]
    with pytest.raises(UserError, match="added twice"):
        outlier_arms.as_evidence([*results, results[0]], SETTINGS)
    with pytest.raises(UserError, match="key case `token/all/9` is not a case"):
        outlier_arms.shards(["token/residual/4"], ["token/all/9"], SETTINGS)
