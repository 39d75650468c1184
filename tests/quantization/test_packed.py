"""A packed checkpoint: the same logits bit for bit, as many bytes as were counted, and no foreign file is opened."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import packed, round_and_save, size, stored
from mmlib.quantization.model import Spec, linears, quantize_model

SPECS = [
    Spec("gptq", 2, 32), Spec("gptq", 3, 64), Spec("gptq", 4, None), Spec("gptq", 8, 32, act_order=False),
    Spec("rtn", 3, 32), Spec("rtn", 5, None),
]  # fmt: skip


@pytest.fixture
def calibration(tiny_llama):
    return torch.randint(0, tiny_llama.config.vocab_size, (4, 32), generator=torch.Generator().manual_seed(3))


def logits(model):
    with torch.inference_mode():
        return model(torch.tensor([[5, 6, 7, 8, 9]])).logits


def rounded(model, spec, calibration, bit_map=None):
    stored.at_16_bits(model)
    return quantize_model(model, spec, calibration, bit_map).grids


@pytest.mark.parametrize("spec", SPECS)
def test_logits_after_reloading_are_equal_bit_for_bit(tiny_llama, calibration, tmp_path, spec):
    full = logits(tiny_llama)
    grids = rounded(tiny_llama, spec, calibration)
    packed.save(tiny_llama, grids, tmp_path / "small.safetensors")
    again = packed.load(tmp_path / "small.safetensors")
    assert torch.equal(logits(again), logits(tiny_llama)) and not torch.equal(full, logits(again))
    for name, value in tiny_llama.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize("spec", SPECS)
def test_the_file_is_as_large_as_was_counted(tiny_llama, calibration, tmp_path, spec):
    """Beyond the count: at most a byte where a tensor of codes or of zero points does not fill its last one."""
    found = packed.save(tiny_llama, rounded(tiny_llama, spec, calibration), tmp_path / "small.safetensors")
    counted = size.account(tiny_llama, spec.method, spec.bits, spec)["total_bytes"]
    assert 0 <= found["tensor_bytes"] - counted <= 2 * len(linears(tiny_llama))
    assert found["file_bytes"] == (tmp_path / "small.safetensors").stat().st_size > found["tensor_bytes"]


def test_a_mixed_model_keeps_what_its_map_keeps(tiny_llama, calibration, tmp_path):
    bit_map = {"*.down_proj": 8, "model.layers.0.*": 16}
    spec = Spec("gptq", 3, 32)
    found = packed.save(tiny_llama, rounded(tiny_llama, spec, calibration, bit_map), tmp_path / "mixed.safetensors")
    assert torch.equal(logits(packed.load(tmp_path / "mixed.safetensors")), logits(tiny_llama))
    counted = size.account(tiny_llama, "gptq", 3, spec, bit_map)["total_bytes"]
    assert 0 <= found["tensor_bytes"] - counted <= 2 * len(linears(tiny_llama))


def test_an_untied_output_layer_is_saved_too(calibration, tiny_llama):
    from transformers import LlamaForCausalLM

    config = tiny_llama.config.__class__.from_dict(tiny_llama.config.to_dict() | {"tie_word_embeddings": False})
    torch.manual_seed(1)
    model = LlamaForCausalLM(config).eval()
    again = packed.restore(packed.dump(model, rounded(model, Spec("rtn", 4, 32), calibration)))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("keep", [0.99, 0.5, 0.01, 0.0])
def test_a_file_cut_short_is_named(tiny_llama, calibration, tmp_path, keep):
    data = packed.dump(tiny_llama, rounded(tiny_llama, Spec("rtn", 4, 32), calibration))
    (tmp_path / "cut.safetensors").write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match=r"cut\.safetensors is cut short or no safetensors file .*; save the quantized"):
        packed.load(tmp_path / "cut.safetensors")


def test_a_flipped_bit_is_found(tiny_llama, calibration):
    data = bytearray(packed.dump(tiny_llama, rounded(tiny_llama, Spec("rtn", 4, 32), calibration)))
    data[-100] ^= 1
    with pytest.raises(UserError, match="checkpoint is damaged: its tensors are not those that were saved"):
        packed.restore(bytes(data))


def test_foreign_and_missing_files_are_named(tiny_llama, tmp_path):
    from safetensors.torch import save_file

    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no checkpoint at all")
    for name, culprit in (("other", "is no packed checkpoint of format mmlib-packed-1"), ("text", "no safetensors"),
                          ("absent", "is missing")):  # fmt: skip
        with pytest.raises(UserError, match=rf"{name}\.safetensors.*{culprit}"):
            packed.load(tmp_path / f"{name}.safetensors")


def test_a_configuration_of_another_model_is_found(tiny_llama, calibration, monkeypatch):
    grids = rounded(tiny_llama, Spec("rtn", 4, 32), calibration)
    monkeypatch.setattr(tiny_llama.config, "num_hidden_layers", 4)
    with pytest.raises(UserError, match=r"does not fit its own configuration \(model\.layers\."):
        packed.restore(packed.dump(tiny_llama, grids))


def test_what_changed_after_rounding_or_needs_more_than_16_bits_is_not_saved(tiny_llama, calibration, tmp_path):
    grids = rounded(tiny_llama, Spec("gptq", 4, 32), calibration)
    with torch.no_grad():
        tiny_llama.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up_proj does not lie on its grids: it changed"):
        packed.save(tiny_llama, grids, tmp_path / "small.safetensors")
    assert not list(tmp_path.iterdir()), "something was written"
    with torch.no_grad():
        tiny_llama.model.embed_tokens.weight[0, 0] = 1 / 3
    with pytest.raises(UserError, match=r"embed_tokens\.weight does not fit into 16 bits"):
        packed.save(tiny_llama, {}, tmp_path / "small.safetensors")


def test_the_command_saves_reloads_and_compares(tiny_llama, tokenizer, calibration, tmp_path, monkeypatch, capsys):
    from mmlib.quantization import bench

    monkeypatch.setattr("mmlib.models.lm.open_checkpoint", lambda folder: (tiny_llama, tokenizer))
    monkeypatch.setattr(bench, "calibration_windows", lambda *_: calibration)
    path = tmp_path / "small.safetensors"
    round_and_save.main(["3", str(path), "--map", "*.down_proj=8", "--map", "model.layers.0.*=16"])
    said = capsys.readouterr().out
    assert "logits after reloading are equal, bit for bit" in said and f"file {path.stat().st_size}" in said
    for wrong, culprit in (("*.dwn_proj=8", "did you mean"), ("*.down_proj", "is not PATTERN=BITS"),
                           ("*.down_proj=9", "asks for 9 bits; choose from 2, 3")):  # fmt: skip
        with pytest.raises(UserError, match=culprit):
            round_and_save.main(["3", str(tmp_path / "none"), "--map", wrong])
    assert not (tmp_path / "none").exists()
