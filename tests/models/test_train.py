"""Training a language model: it learns, the order of texts is the seed's, and frozen weights stay."""

from __future__ import annotations

import torch

from mmlib.models.train import left_padded, train_lm
from mmlib.quantization import arithmetic, family

TEXTS = arithmetic.documents(40, 5, 2, "train", worked=1.0, problems=1, leave_out=[])


def trained(seed, frozen=(), steps=20):
    tokenizer = arithmetic.build_tokenizer(5)
    model = family.build_model(32, tokenizer, 0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    loss = train_lm(model, tokenizer, TEXTS, steps=steps, batch=8, learning_rate=0.01, seed=seed)
    return model, loss


def test_it_learns_and_ends_in_eval_mode():
    _, short = trained(0, steps=2)
    model, long = trained(0, steps=40)
    assert long < 0.8 * short and not model.training


def test_the_same_seed_gives_the_same_weights_bit_by_bit_and_another_seed_does_not():
    (first, loss), (second, again), (other, _) = trained(0), trained(0), trained(1)
    assert loss == again
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_what_needs_no_gradient_stays():
    name = "model.layers.0.mlp.up_proj.weight"
    before = dict(family.build_model(32, arithmetic.build_tokenizer(5), 0).named_parameters())[name]
    model, _ = trained(0, frozen=(name,))
    assert torch.equal(dict(model.named_parameters())[name], before)


def test_batches_are_those_of_the_library_s_collator(tokenizer):
    from transformers import DataCollatorForLanguageModeling

    tokenizer.padding_side, tokenizer.pad_token = "left", "a"  # a padding token that occurs in texts, too
    rows = [
        {"input_ids": tokenizer(text, add_special_tokens=False).input_ids} for text in ("Japan", "a Peru a", "Lima")
    ]
    expected = DataCollatorForLanguageModeling(tokenizer, mlm=False)([dict(row) for row in rows])
    made = left_padded(tokenizer.pad_token_id, rows)
    assert made.keys() == expected.keys()
    assert all(made[key].equal(expected[key]) for key in expected)
