"""Whole-model quantization: true-sequential order against a slow, independent implementation."""

from __future__ import annotations

import copy

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import bnb, size
from mmlib.quantization.gptq import gptq, hessian
from mmlib.quantization.model import GROUPS, Spec, linears, quantize_model


@pytest.fixture
def calibration(tiny_llama):
    return torch.randint(0, tiny_llama.config.vocab_size, (4, 32), generator=torch.Generator().manual_seed(3))


def slowly(model, spec, calibration):
    """The definition: before each group, run the whole model from the start and collect that group's inputs."""
    for block in model.model.layers:
        for group in GROUPS:
            seen = []
            hook = block.get_submodule(group[0]).register_forward_pre_hook(lambda m, x, seen=seen: seen.append(x[0]))
            with torch.inference_mode():
                model(calibration)
            hook.remove()
            h = hessian(torch.cat(seen))
            for kind in group:
                part = block.get_submodule(kind)
                part.weight.data = gptq(part.weight.data, h, spec.bits, spec.group, act_order=spec.act_order).weight


@pytest.mark.parametrize("spec", [Spec("gptq", 3, 32), Spec("gptq", 2, None), Spec("gptq", 4, 32, act_order=False)])
def test_one_pass_equals_recomputing_everything_before_each_group(tiny_llama, calibration, spec):
    slow = copy.deepcopy(tiny_llama)
    slowly(slow, spec, calibration)
    quantize_model(tiny_llama, spec, calibration)
    for name, part in linears(tiny_llama).items():
        assert torch.allclose(part.weight, slow.get_submodule(name).weight, atol=1e-4), name


@pytest.mark.parametrize("spec", [Spec("gptq", 2, 32), Spec("rtn", 2, 32)])
def test_only_the_seven_linears_change_and_all_of_them_do(tiny_llama, calibration, spec):
    before = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    quantize_model(tiny_llama, spec, calibration)
    changed = {n for n, v in tiny_llama.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {f"{name}.weight" for name in linears(tiny_llama)}
    assert len(changed) == 7 * len(tiny_llama.model.layers)


def test_gptq_beats_rtn_on_the_calibration_outputs(tiny_llama, calibration):
    with torch.inference_mode():
        target = tiny_llama.model(calibration).last_hidden_state
    errors = {}
    for method in ("rtn", "gptq"):
        model = copy.deepcopy(tiny_llama)
        quantize_model(model, Spec(method, 3, None), calibration)
        with torch.inference_mode():
            errors[method] = (model.model(calibration).last_hidden_state - target).square().mean().item()
    assert errors["gptq"] < errors["rtn"]


def test_report_names_every_kind_and_hooks_are_gone(tiny_llama, calibration):
    report = quantize_model(tiny_llama, Spec("gptq", 4, 32), calibration)
    assert report.loss.keys() == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(value > 0 for value in report.loss.values())
    assert not any(module._forward_pre_hooks for module in tiny_llama.modules())


def test_faults_are_named_before_any_weight_changes(tiny_llama, calibration):
    before = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    with pytest.raises(UserError, match=r"group size 48 does not divide the 64 inputs of model\.layers\.0"):
        quantize_model(tiny_llama, Spec("gptq", 4, 48), calibration)
    with pytest.raises(UserError, match="no calibration text"):
        quantize_model(tiny_llama, Spec("gptq", 4))
    with pytest.raises(UserError, match="unknown method `awq`"):
        quantize_model(tiny_llama, Spec("awq", 4))
    assert all(torch.equal(value, before[name]) for name, value in tiny_llama.state_dict().items())


@pytest.mark.parametrize(("kind", "worst"), [("int8", 0.02), ("nf4", 0.15)])
def test_bitsandbytes_changes_a_copy_a_little(tiny_llama, calibration, kind, worst):
    before = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    changed = bnb.apply(tiny_llama, kind)
    with torch.inference_mode():
        target = tiny_llama.model(calibration).last_hidden_state
        error = (changed.model(calibration).last_hidden_state - target).norm() / target.norm()
    assert 0 < error < worst
    assert all(torch.equal(value, before[name]) for name, value in tiny_llama.state_dict().items())
    with pytest.raises(UserError, match="unknown bitsandbytes format"):
        bnb.apply(tiny_llama, "int4")


def test_packed_size_is_what_packing_takes(tiny_llama):
    """Pack one linear for real: codes, scales, zero points; length and round trip must be exact."""
    from mmlib.quantization.stored import fit, rtn

    linear = tiny_llama.model.layers[0].mlp.down_proj
    for bits, group in ((2, 32), (3, 64), (4, 128), (8, 32)):
        grouped = linear.weight.data.view(linear.out_features, -1, group)
        grid = fit(grouped, bits)
        codes = size.pack(grid.codes(grouped), bits)
        zeros = size.pack(grid.zero, bits)
        stored = 8 * (len(codes) + len(zeros)) + 16 * grid.scale.numel()
        assert stored == size.packed_bits(linear, bits, group, indexed=False)
        again = size.unpack(codes, bits, tuple(grouped.shape)) - size.unpack(zeros, bits, tuple(grid.zero.shape))
        assert torch.equal((again * grid.scale).view_as(linear.weight), rtn(linear.weight.data, bits, group)[0])


@pytest.mark.parametrize(("bits", "expected"), [(2, 2.28), (4, 4.31)])
def test_effective_bits_are_the_published_ones(bits, expected):
    wide = torch.nn.Linear(4096, 512, bias=False)
    assert size.packed_bits(wide, bits, 64, indexed=False) / wide.weight.numel() == pytest.approx(expected, abs=0.005)


def test_the_account_adds_up(tiny_llama):
    full = size.account(tiny_llama, "none", 16)
    assert full["total_bytes"] == 2 * sum(p.numel() for p in tiny_llama.parameters())
    small = size.account(tiny_llama, "rtn", 2, Spec("rtn", 2, 32))
    indexed = size.account(tiny_llama, "gptq", 2, Spec("gptq", 2, 32))
    assert small["other_bytes"] == full["other_bytes"] and small["block_bytes"] < full["block_bytes"] / 6
    columns = sum(part.in_features for part in linears(tiny_llama).values())
    assert indexed["block_bytes"] - small["block_bytes"] == 2 * columns


def test_a_bit_map_gives_every_linear_its_bits(tiny_llama, calibration):
    original = {name: part.weight.detach().clone() for name, part in linears(tiny_llama).items()}
    bit_map = {"*.mlp.*": 3, "*.down_proj": 8, "model.layers.0.*": 16}
    report = quantize_model(tiny_llama, Spec("gptq", 2, 32), calibration, bit_map)
    for name, part in linears(tiny_llama).items():
        kept = name.startswith("model.layers.0.")
        expected = 8 if name.endswith("down_proj") else 3 if ".mlp." in name else 2
        assert torch.equal(part.weight, original[name]) == kept, name
        assert kept or report.grids[name].bits == expected, name
        assert kept or len(part.weight[0, :].unique()) <= 2**expected * part.in_features // 32, name
    assert report.grids.keys() == {name for name in original if not name.startswith("model.layers.0.")}


def test_widths_in_one_group_of_linears_do_not_touch_each_other(tiny_llama, calibration):
    """q, k, v share an input and one Hessian: q at 4 bits is the same, whatever k and v get (first block)."""
    mixed, plain = copy.deepcopy(tiny_llama), copy.deepcopy(tiny_llama)
    quantize_model(mixed, Spec("gptq", 4, 32), calibration, {"*.k_proj": 2, "*.v_proj": 16})
    quantize_model(plain, Spec("gptq", 4, 32), calibration)
    q, k = (f"model.layers.0.self_attn.{kind}_proj" for kind in "qk")
    assert torch.allclose(mixed.get_submodule(q).weight, plain.get_submodule(q).weight, atol=1e-6)
    assert not torch.allclose(mixed.get_submodule(k).weight, plain.get_submodule(k).weight, atol=1e-2)


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_a_bit_map_that_names_no_linear_changes_nothing(tiny_llama, calibration, method):
    before = {name: value.clone() for name, value in tiny_llama.state_dict().items()}
    with pytest.raises(UserError, match=r"no linear is named like `\*\.dwn_proj`; did you mean `\*\.down_proj`"):
        quantize_model(tiny_llama, Spec(method, 4, 32), calibration, {"*.q_proj": 2, "*.dwn_proj": 8})
    assert all(torch.equal(value, before[name]) for name, value in tiny_llama.state_dict().items())


def test_the_account_of_a_bit_map_adds_up(tiny_llama):
    spec = Spec("rtn", 2, 32)
    parts = linears(tiny_llama)
    mixed = size.account(tiny_llama, "rtn", 2, spec, {"*.up_proj": 8, "*.o_proj": 16})["block_bytes"]
    widths = {name: 16 if name.endswith("o_proj") else 8 if name.endswith("up_proj") else 2 for name in parts}
    by_hand = sum(
        part.weight.numel() * 16 if widths[name] == 16
        else part.weight.numel() * widths[name] + part.weight.numel() // 32 * (16 + widths[name])
        for name, part in parts.items()
    )  # fmt: skip
    assert mixed == by_hand // 8
