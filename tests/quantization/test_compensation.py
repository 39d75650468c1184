"""Fine-tuning before and after rounding: what is frozen stays, adapters start at zero, merged models are found out."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import arithmetic, compensation, family, family_store, learning_rates
from mmlib.quantization.model import linears

BASE = {"widths": [2], "group": 32, "seeds": [0], "largest": 5, "most_steps": 2, "items": 6, "early_size": 32}
SETTINGS = {"steps": 3, "batch": 4, "rank": 4, "alpha": 8, "learning_rates": [0.01, 0.02], "validation_seeds": [0]}
RATES = {"lora": 0.01, "full": 0.01, "distilled": 0.02}
EARLY = {"width": 32, "seed": 0, "steps": 2, "early": True, "learning_rate": 0.01,
         "settings": {**BASE, "batch": 4}}  # fmt: skip


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
    model = compensation.add_lora(made.model, 4, 8, 0, 2, 32)
    assert torch.equal(logits(model), before), "step 0 is not the rounded model"
    texts = compensation.tuning_texts(BASE, SETTINGS, 0, made.tests)
    compensation.tune(model, texts, made.tokenizer, SETTINGS, RATES["lora"], 0)
    assert not torch.equal(logits(model), before), "nothing was learned"
    for name, linear in linears(model).items():
        assert torch.equal(linear.weight, frozen[name]), f"{name} moved: it is not frozen"
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_lora_on_a_merged_model_is_refused():
    made = rounded()
    model = compensation.add_lora(made.model, 4, 8, 0, 2, 32)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    wanted = logits(model)
    merged = compensation.merge(model)
    assert torch.allclose(logits(merged), wanted, atol=1e-4), "merging changed the function"
    with pytest.raises(UserError, match=r"values in a row, 2 bits allow 4: merged, or never quantized"):
        compensation.add_lora(merged, 4, 8, 0, 2, 32)


def test_lora_on_a_model_that_was_never_rounded_or_has_adapters_is_refused():
    with pytest.raises(UserError, match="never quantized"):
        compensation.add_lora(subject().model, 4, 8, 0, 2, 32)
    model = compensation.add_lora(rounded().model, 4, 8, 0, 2, 32)
    with pytest.raises(UserError, match="already has an adapter"):
        compensation.add_lora(model, 4, 8, 0, 2, 32)


def test_the_same_texts_for_every_way_and_none_of_the_tests():
    tests = subject().tests
    first, second = (compensation.tuning_texts(BASE, SETTINGS, 0, tests) for _ in range(2))
    assert first == second != compensation.tuning_texts(BASE, SETTINGS, 1, tests)
    pretrained = family.training_texts(BASE, "base/0", len(first), tests)
    assert not set(first) & set(pretrained)


def test_distilled_texts_are_the_same_questions_with_the_answers_of_the_model():
    made = subject()
    texts = compensation.tuning_texts(BASE, SETTINGS, 0, made.tests)
    own = compensation.distilled(texts, made)
    assert [arithmetic.questions_of(text) for text in own] == [arithmetic.questions_of(text) for text in texts]
    assert own != texts, "an untrained model cannot know the answers"
    prompt = f"{made.demonstration.solved(True)} {arithmetic.questions_of(texts[0])[0]}"
    said = family.generate(made.model, made.tokenizer, [prompt], 16)[0].split()
    assert own[0].split("?", 1)[1].split()[: len(said)] == said


def test_where_a_grid_has_as_many_levels_as_a_group_has_weights_the_rounding_itself_is_checked():
    """8 bits and groups of 32: a row of 64 random weights has few enough values, and was never rounded."""
    with pytest.raises(UserError, match="is not as rounding to 8 bits left it: merged, or never quantized"):
        compensation.add_lora(subject().model, 4, 8, 0, 8, 32)
    made = subject()
    family.rounded(made, 8, BASE)
    with torch.no_grad():
        linears(made.model)["model.layers.0.mlp.up_proj"].weight[0, 0] += 1e-3
    with pytest.raises(UserError, match=r"up_proj is not as rounding to 8 bits left it"):
        compensation.add_lora(made.model, 4, 8, 0, 8, 32)
    made = subject()
    family.rounded(made, 8, BASE)
    assert compensation.add_lora(made.model, 4, 8, 0, 8, 32)


def test_a_grid_finer_than_the_group_is_refused():
    made = subject()
    family.rounded(made, 2, {**BASE, "group": 16})
    with pytest.raises(UserError, match=r"2 bits allow 4:"):
        compensation.add_lora(made.model, 4, 8, 0, 2, 32)
    assert compensation.add_lora(made.model, 4, 8, 0, 2, 16)


def test_learning_rates_are_chosen_on_problems_that_are_not_the_tests(tmp_path, monkeypatch):
    family_store.write([family.evaluate(EARLY)], tmp_path / compensation.FOLDER)
    monkeypatch.setattr(compensation.store, "project_root", lambda: tmp_path)
    asked = []
    monkeypatch.setattr(family, "say", lambda subject, model: asked.extend(subject.tests) or [""] * len(subject.tests))
    threads = torch.get_num_threads()
    rows = [row for shard in learning_rates.validation_shards(BASE, SETTINGS) for row in learning_rates.validate(shard)]
    torch.set_num_threads(threads)
    assert {(row["way"], row["learning_rate"]) for row in rows} == {
        (way, rate) for way in ("lora", "full", "distilled") for rate in (0.01, 0.02)
    }
    assert asked and not {p.question for p in asked} & {p.question for p in subject().tests}


def test_the_best_mean_over_seeds_is_chosen():
    rows = [
        {"way": way, "learning_rate": rate, "solved": solved}
        for way, scores in (
            ("lora", {0.1: (0.5, 0.7), 0.2: (0.9, 0.0)}),
            ("full", {0.1: (0.2,), 0.2: (0.3,)}),
            ("distilled", {0.1: (0.4,), 0.2: (0.4,)}),
        )
        for rate, values in scores.items()
        for solved in values
    ]
    assert learning_rates.chosen(rows) == {"lora": 0.1, "full": 0.2, "distilled": 0.1}


def test_a_recovery_is_a_gain_on_rounded_weights_beyond_the_gain_on_16_bit_ones():
    arms = {("base-w16", 0): [0.0, 1.0], ("base-w2", 0): [0.0, 0.0], ("lora-before-w16", 0): [1.0, 1.0],
            ("lora-after-w2", 0): [1.0, 1.0], ("base-w2", 1): [1.0, 1.0], ("lora-after-w2", 1): [0.0, 1.0]}  # fmt: skip
    found = compensation.gains({key: {"cot_strict": values} for key, values in arms.items()}, "cot_strict")
    assert found == {("lora-before-w16", 0): [1.0, 0.0], ("lora-after-w2", 0): [1.0, 1.0],
                     ("lora-after-w2", 1): [-1.0, 0.0]}  # fmt: skip
    with pytest.raises(KeyError):  # no control at these bits: nothing to compare with
        compensation.gains({("lora-after-w3", 0): {"cot_strict": [1.0]}}, "cot_strict")


def test_all_arms_come_out_of_the_shards(tmp_path, monkeypatch):
    result = family.evaluate(EARLY)
    assert result["arms"].keys() == {"16", "2"} and result["validated"].keys() == {
        "direct_em",
        "cot_strict",
        "cot_logprob",
    }
    family_store.write([result], tmp_path / compensation.FOLDER)
    monkeypatch.setattr(compensation.store, "project_root", lambda: tmp_path)
    threads = torch.get_num_threads()
    results = [compensation.evaluate(shard) for shard in compensation.shards(BASE, SETTINGS, RATES)]
    torch.set_num_threads(threads)
    arms = {arm: scores for each in results for arm, scores in each["arms"].items()}
    before = {f"{way}-w{bits}" for way in ("base", "lora-before", "full-before") for bits in (16, 2)}
    assert arms.keys() == before | {"lora-after-w2", "lora-distilled-w16", "lora-distilled-w2"}
    assert arms["base-w16"] == family.scores(compensation.load_base(BASE, 0))
    assert {arm for each in results for arm in each["said"]} == arms.keys()
    evidence = compensation.as_evidence(results, BASE)
    assert evidence["metrics"]["cot_strict"]["values"].keys() == arms.keys()
    gained = evidence["metrics"]["cot_logprob_gain"]["values"]
    assert gained.keys() == {arm for arm in arms if not arm.startswith("base")}
    of, base = arms["lora-after-w2"]["cot_logprob"], arms["base-w2"]["cot_logprob"]
    assert gained["lora-after-w2"]["0"] == pytest.approx([a - b for a, b in zip(of, base, strict=True)], abs=1e-4)
