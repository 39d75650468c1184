"""Checkpoints: pickles and floating revisions are refused, truncation and reopening are exact."""

from __future__ import annotations

import os

import pytest
import torch

from mmlib.errors import UserError
from mmlib.models import lm


class Exploit:
    def __reduce__(self):
        return os.system, (f"touch {os.environ['EXPLOIT_MARK']}",)


def test_a_checkpoint_with_a_pickle_inside_is_refused_and_never_run(tiny_llama, tokenizer, tmp_path, monkeypatch):
    mark = tmp_path / "owned"
    monkeypatch.setenv("EXPLOIT_MARK", str(mark))
    lm.save_checkpoint(tiny_llama, tokenizer, tmp_path / "ckpt")
    torch.save({"w": Exploit()}, tmp_path / "ckpt/pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle.*safetensors"):
        lm.open_checkpoint(tmp_path / "ckpt")
    assert not mark.exists()


def test_weights_that_are_only_a_pickle_are_refused(tiny_llama, tokenizer, tmp_path):
    lm.save_checkpoint(tiny_llama, tokenizer, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.pt")
    with pytest.raises(UserError, match="pickle"):
        lm.open_checkpoint(tmp_path)


def test_reopened_checkpoint_is_equal(tiny_llama, tokenizer, tmp_path):
    lm.save_checkpoint(tiny_llama, tokenizer, tmp_path)
    again, words = lm.open_checkpoint(tmp_path)
    assert all(torch.equal(v, tiny_llama.state_dict()[k]) for k, v in again.state_dict().items())
    assert words("Japan").input_ids == tokenizer("Japan").input_ids


def test_truncation_keeps_the_first_blocks(tiny_llama):
    first = tiny_llama.model.layers[0]
    lm.truncate(tiny_llama, 1)
    assert list(tiny_llama.model.layers) == [first] and tiny_llama.config.num_hidden_layers == 1
    assert tiny_llama(torch.tensor([[1, 2, 3]])).logits.shape[1] == 3
    with pytest.raises(UserError, match=r"lm\.layers is 5"):
        lm.truncate(tiny_llama, 5)


@pytest.mark.parametrize("revision", ["", "main", "abc123", "12FD25F77366FA6B3B4B768EC3050BF629380BAC"])
def test_only_a_commit_is_a_revision(revision):
    with pytest.raises(UserError, match="not a commit"):
        lm.import_hub("some/model", revision)


def test_missing_inputs_name_the_command(tmp_path):
    with pytest.raises(UserError, match="mmlib fetch"):
        lm.import_gguf(tmp_path / "none.gguf")
    with pytest.raises(UserError, match="no checkpoint"):
        lm.open_checkpoint(tmp_path)
