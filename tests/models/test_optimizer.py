"""Muon beside AdamW: who trains what, schedules that reach both, states that survive."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmlib.models.optimizer import build_muon, split_parameters

CONFIG = LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                     tie_word_embeddings=True)  # fmt: skip


def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIG)


def steps(net, optimizer, count):
    tokens = torch.randint(20, (16, 20), generator=torch.Generator().manual_seed(0))
    for _ in range(count):
        net(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


def test_matrices_of_hidden_layers_are_muon_s_and_nothing_is_left_out():
    net = model()
    net.model.norm.weight.requires_grad_(False)
    hidden, others = split_parameters(net)
    names = {id(weight): name for name, weight in net.named_parameters()}
    assert {names[id(w)].split(".")[-2] for w in hidden} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}  # fmt: skip
    assert "model.embed_tokens.weight" in {names[id(w)] for w in others}
    trained = [w for w in net.parameters() if w.requires_grad]
    assert len(hidden) + len(others) == len(trained)


def test_the_update_of_a_matrix_is_orthogonal_and_as_large_as_adamw_s():
    net, before = model(), model()
    optimizer = build_muon(net, 1e-3, 1e-3, 0.0)
    steps(net, optimizer, 1)
    change = net.model.layers[0].mlp.up_proj.weight - before.model.layers[0].mlp.up_proj.weight
    values = torch.linalg.svdvals(change.detach())
    assert values[0] < 2 * values[11], f"far from orthogonal: {values}"  # 16 values; the gradient has a few near 0
    assert change.square().mean().sqrt().item() == pytest.approx(0.2 * 1e-3, rel=0.35)


def test_a_schedule_reaches_both_parts():
    optimizer = build_muon(model(), 1e-2, 1e-3, 0.0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [5e-4, 5e-3]


def test_a_saved_state_goes_on_with_the_same_bits(tmp_path):
    whole, half, later = model(), model(), model()
    wanted = steps(whole, build_muon(whole, 1e-2, 1e-3, 0.1), 6)
    first = build_muon(half, 1e-2, 1e-3, 0.1)
    steps(half, first, 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = build_muon(later, 1e-2, 1e-3, 0.1)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    later.load_state_dict(half.state_dict())
    assert second.param_groups[0] is second.parts[0].param_groups[0], "a schedule would no longer reach the parts"
    assert torch.equal(steps(later, second, 3), wanted)
