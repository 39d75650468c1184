"""Fine-tuning before and after rounding: what is frozen stays, adapters start at zero, merged models are found out."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import arithmetic, compensation, family
from mmlib.quantization.model import linears

BASE = {"widths": [2], "group": 32, "seeds": [0], "largest": 5, "items": 6}
SETTINGS = {"width": 32, "steps": 3, "batch": 4, "rank": 4, "alpha": 8, "learning_rates": {"lora": 0.01, "full": 0.01}}


def subject():
    tokenizer = arithmetic.build_tokenizer(BASE["largest"])
    return family.subject(family.build_model(32, tokenizer, 0).eval(), tokenizer, BASE, 0)


def rounded():
    made = subject()
    family.rounded(made, 2, BASE)
    return made


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8]])).logits


def test_lora_starts_as_the_rounded_model_and_trains_nothing_else():
    made = rounded()
    before, frozen = logits(made.model), {n: lin.weight.clone() for n, lin in linears(made.model).items()}
    model = compensation.add_lora(made.model, 4, 8, 0, 2)
    assert torch.equal(logits(model), before), "step 0 is not the rounded model"
    texts = compensation.tuning_texts(BASE, SETTINGS, 0, made.tests)
    compensation.tune(model, texts, made.tokenizer, SETTINGS, "lora", 0)
    assert not torch.equal(logits(model), before), "nothing was learned"
    for name, linear in linears(model).items():
        assert torch.equal(linear.weight, frozen[name]), f"{name} moved: it is not frozen"
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_lora_on_a_merged_model_is_refused():
    made = rounded()
    model = compensation.add_lora(made.model, 4, 8, 0, 2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    wanted = logits(model)
    merged = compensation.merge(model)
    assert torch.allclose(logits(merged), wanted, atol=1e-4), "merging changed the function"
    with pytest.raises(UserError, match=r"values in a row, 2 bits allow 4: merged, or never quantized"):
        compensation.add_lora(merged, 4, 8, 0, 2)


def test_lora_on_a_model_that_was_never_rounded_or_has_adapters_is_refused():
    with pytest.raises(UserError, match="never quantized"):
        compensation.add_lora(subject().model, 4, 8, 0, 2)
    model = compensation.add_lora(rounded().model, 4, 8, 0, 2)
    with pytest.raises(UserError, match="already has an adapter"):
        compensation.add_lora(model, 4, 8, 0, 2)


def test_the_same_texts_for_every_way_and_none_of_the_tests():
    tests = subject().tests
    first, second = (compensation.tuning_texts(BASE, SETTINGS, 0, tests) for _ in range(2))
    assert first == second != compensation.tuning_texts(BASE, SETTINGS, 1, tests)
    pretrained = family.training_texts(BASE, "base/0", len(first), tests)
    assert not set(first) & set(pretrained)


def test_all_arms_come_out_of_the_shards(tmp_path, monkeypatch):
    result = family.evaluate(
        {"width": 32, "seed": 0, "settings": {**BASE, "steps": 2, "batch": 4, "learning_rate": 0.01}}
    )
    family.write_weights([result], tmp_path / compensation.FOLDER)
    monkeypatch.setattr(compensation.store, "project_root", lambda: tmp_path)
    threads = torch.get_num_threads()
    results = [compensation.evaluate(shard) for shard in compensation.shards(BASE, SETTINGS)]
    torch.set_num_threads(threads)
    arms = {arm: scores for each in results for arm, scores in each["arms"].items()}
    before = {f"{way}-w{bits}" for way in ("base", "lora-before", "full-before") for bits in (16, 2)}
    assert arms.keys() == before | {"lora-after-w16", "lora-after-w2"}
    assert arms["base-w16"] == result["arms"]["16"]["scores"] and arms["base-w2"] == result["arms"]["2"]["scores"]
    evidence = compensation.as_evidence(results, BASE)
    assert evidence["metrics"]["cot_strict"]["values"].keys() == arms.keys()
