"""Kept sets, one rounding for all of them, and the evidence they yield, on a tiny random model."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import components
from mmlib.quantization.components import ATTENTION, FFN, KINDS, kind
from mmlib.quantization.gptq import gptq, hessian
from mmlib.quantization.model import GROUPS, linears

HOW = {"damping": 0.01, "act_order": True}


@pytest.fixture
def calibration():
    return torch.randint(0, 50, (8, 16), generator=torch.Generator().manual_seed(1))


def test_every_linear_is_gptq_on_its_own_16_bit_inputs(tiny_llama, calibration):
    before = {name: linear.weight.detach().clone() for name, linear in linears(tiny_llama).items()}
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(lambda m, x, name=name: seen.update({name: x[0]}))
        for name, linear in linears(tiny_llama).items()
    ]
    with torch.inference_mode():
        tiny_llama.model(calibration)
    for hook in hooks:
        hook.remove()
    rounding = components.round_all(tiny_llama, 3, 64, calibration, **HOW)
    assert rounding.weights.keys() == rounding.loss.keys() == before.keys()
    for name, weight in before.items():
        assert torch.equal(linears(tiny_llama)[name].weight, weight), "the model itself was changed"
        alone = gptq(weight, hessian(seen[name]), 3, 64)
        assert torch.allclose(rounding.weights[name], alone.weight, atol=1e-5), name
        assert rounding.loss[name] == pytest.approx(alone.loss.sum().item(), rel=1e-3)


def test_kept_linears_stay_and_all_others_are_rounded(tiny_llama, calibration):
    original = {name: linear.weight.detach().clone() for name, linear in linears(tiny_llama).items()}
    rounding = components.round_all(tiny_llama, 2, 64, calibration, **HOW)
    components.apply_map(tiny_llama, {2: rounding}, {"*": 2, "*.down_proj": 16})
    for name, linear in linears(tiny_llama).items():
        expected = original[name] if kind(name) == "down_proj" else rounding.weights[name]
        assert torch.equal(linear.weight, expected), name


def test_a_map_of_several_widths_takes_each_weight_from_its_own_rounding(tiny_llama, calibration):
    roundings = {bits: components.round_all(tiny_llama, bits, 64, calibration, **HOW) for bits in (2, 3)}
    widths = components.apply_map(tiny_llama, roundings, {"*": 2, "*.self_attn.*": 3})
    for name, linear in linears(tiny_llama).items():
        assert widths[name] == (3 if kind(name) in ATTENTION else 2)
        assert torch.equal(linear.weight, roundings[widths[name]].weights[name]), name


def test_an_unknown_module_or_width_is_named_and_nothing_is_changed(tiny_llama, calibration):
    rounding = components.round_all(tiny_llama, 2, 64, calibration, **HOW)
    before = {name: linear.weight.detach().clone() for name, linear in linears(tiny_llama).items()}
    near = r"no linear is named like `model.layers.0.mlp.upproj`; did you mean `model.layers.0.mlp.up_proj`"
    with pytest.raises(UserError, match=near):
        components.apply_map(tiny_llama, {2: rounding}, {"*": 2, "model.layers.0.mlp.upproj": 16})
    with pytest.raises(UserError, match="nothing was rounded to 3 bits; use 2, 16"):
        components.apply_map(tiny_llama, {2: rounding}, {"*": 2, "*.mlp.*": 3})
    assert all(torch.equal(linear.weight, before[name]) for name, linear in linears(tiny_llama).items())


def names_and_losses():
    names = [f"model.layers.{i}.{k}" for i in range(4) for group in GROUPS for k in group]
    sizes = {name: {"q_proj": 9, "k_proj": 3, "v_proj": 3, "o_proj": 9}.get(kind(name), 24) for name in names}
    loss = {name: {"k_proj": 5.0, "v_proj": 9.0}.get(kind(name), 1.0) for name in names}
    return sizes, loss


def test_crucial_is_down_and_the_two_worst_attention_projections():
    _, loss = names_and_losses()
    assert components.crucial_kinds(loss) == ("down_proj", "v_proj", "k_proj")
    worse = {name: 50.0 if kind(name) == "q_proj" and ".0." in name else value for name, value in loss.items()}
    assert components.crucial_kinds(worse) == ("down_proj", "q_proj", "v_proj"), "the mean over blocks decides"
    huge = {name: 99.0 if kind(name) == "up_proj" else value for name, value in loss.items()}
    assert components.crucial_kinds(huge) == ("down_proj", "v_proj", "k_proj"), "only attention is ranked"


def test_kept_sets_and_their_controls_have_the_weights_they_claim():
    sizes, loss = names_and_losses()
    sets = components.keep_sets(sizes, loss, seed=0)
    kept = {arm: sum(sizes[name] for name in names) for arm, names in sets.items()}
    assert sets["none"] == set() and set(KINDS) < set(sets)
    assert sets["attention"] | sets["ffn"] == set(sizes) and not sets["attention"] & sets["ffn"]
    assert {kind(name) for name in sets["attention"]} == set(ATTENTION)
    assert kept["attention"] * 3 == kept["ffn"]
    for arm in ("attention", "ffn", "crucial"):
        assert 0 <= kept[arm] - kept[f"random-as-{arm}"] < min(sizes.values()) * 8, arm
    assert {kind(name) for name in sets["ffn-sample"]} <= set(FFN)
    assert kept["ffn-sample"] == kept["attention"]
    assert {kind(name) for name in sets["ffn-as-crucial"]} <= set(FFN)
    assert 0 <= kept["crucial"] - kept["ffn-as-crucial"] < 24


def test_random_subsets_differ_by_seed_and_never_exceed_the_budget():
    sizes, _ = names_and_losses()
    drawn = [frozenset(components.random_subset(sizes, 100, f"x/{seed}")) for seed in range(8)]
    assert len(set(drawn)) > 1 and all(80 < sum(sizes[n] for n in d) <= 100 for d in drawn)
    assert components.random_subset(sizes, 100, "x/0") == drawn[0]


class Tasks:
    name, hash = "capital", "0123456789abcdef"

    def __init__(self, ids):
        self._ids = ids

    def ids(self):
        return self._ids


def test_evidence_names_arms_by_width_and_leaves_out_what_was_not_measured():
    settings = {"icl_items": 2, "tasks": ["capital"], "text_windows": 1, "shots": 5}
    text = {"nll": [1.0], "kl": [0.0], "top1": [1.0]}
    results = [
        {"bits": 2, "seed": seed, "arms": {"ffn": {"text": text, "exact": [1.0, 0.0]},
                                           "q_proj": {"text": text, "exact": None}}}
        for seed in (0, 1)
    ]  # fmt: skip
    results.append({"bits": 16, "seed": None, "arms": {"16-bit": {"text": text, "exact": [1.0, 1.0]}}})
    evidence = components.as_evidence(results, [Tasks(["capital/a", "capital/b"])], settings)
    exact = evidence["metrics"]["icl_em_5shot"]["values"]
    assert exact == {"w2-ffn": {"0": [1, 0], "1": [1, 0]}, "16-bit": {"-": [1, 1]}}
    assert set(evidence["metrics"]["nll"]["values"]) == {"w2-ffn", "w2-q_proj", "16-bit"}
