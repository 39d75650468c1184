"""The arithmetic language and the models trained on it: no leaks, exact weights, scores that read answers rightly."""

from __future__ import annotations

import random
import re

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import arithmetic, equal_bits, family, family_search, family_store
from mmlib.quantization.model import linears

SETTINGS = {
    "sizes": [32], "widths": [8, 2], "group": 32, "seeds": [0], "largest": 5, "most_steps": 2, "items": 12,
    "steps": [60], "batch": 16, "learning_rates": [0.005, 0.01], "early_size": 32, "early_steps": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def result():
    threads = torch.get_num_threads()
    yield family.evaluate(family.shards(SETTINGS, {32: 0.01})[0])
    torch.set_num_threads(threads)


@pytest.mark.parametrize("number", range(30))
def test_the_work_shown_is_right(number):
    """Python itself evaluates every step of the written solution."""
    problem = arithmetic.draw_problem(random.Random(number), 30, 4)
    steps = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", problem.work)
    assert len(steps) == problem.steps <= 4 and steps[-1][3] == problem.answer
    for left, sign, right, total in steps:
        assert (int(left) + int(right) if sign == "+" else int(left) - int(right)) == int(total)
        assert 0 <= int(total) <= 30


def test_no_test_question_is_trained_on_and_a_planted_one_is_found():
    tests = arithmetic.test_problems(20, 9, 2)
    texts = arithmetic.documents(3000, 9, 2, "x", worked=0.5, problems=2, leave_out=tests)
    arithmetic.refuse_leaks(texts, tests)
    with pytest.raises(UserError, match="stands in the training text"):
        arithmetic.refuse_leaks([*texts, tests[7].solved(True)], tests)
    with pytest.raises(UserError, match="stands in the training text"):
        arithmetic.refuse_leaks([f"{texts[0]} {tests[0].solved(False)}"], tests)
    with pytest.raises(UserError, match="appears twice"):
        arithmetic.refuse_leaks(texts, [*tests, tests[0]])


def test_leaving_out_is_what_prevents_the_leak():
    tests = arithmetic.test_problems(20, 3, 2)
    with pytest.raises(UserError, match="stands in the training text"):
        arithmetic.refuse_leaks(arithmetic.documents(8000, 3, 2, "x", worked=0.5, problems=2, leave_out=[]), tests)


def test_every_word_has_a_token():
    tokenizer = arithmetic.build_tokenizer(30)
    for text in arithmetic.documents(50, 30, 3, "x", worked=0.5, problems=2, leave_out=[]):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.pad_token_id not in ids and tokenizer.decode(ids).split() == text.split()


@pytest.mark.parametrize(("answer", "strict", "flexible"), [
    ("7 + 5 = 12 ; answer 12", True, True), ("answer 12", True, True), ("7 + 5 = 12", False, True),
    ("answer 12 answer", False, True), ("12 ; answer 1", False, False), ("", False, False),
])  # fmt: skip
def test_strict_and_flexible_match(answer, strict, flexible):
    problem = arithmetic.Problem("?", "7 + 5 = 12 ;", "12", 1)
    assert (family.strict(answer, problem), family.flexible(answer, problem)) == (strict, flexible)


def test_a_shard_is_trained_rounded_and_measured(result):
    assert result["arms"].keys() == {"16", "8", "2"}
    scores = {bits: arm["scores"] for bits, arm in result["arms"].items()}
    assert all(len(values) == 12 for arm in scores.values() for values in arm.values())
    assert scores["8"]["cot_logprob"] == pytest.approx(scores["16"]["cot_logprob"], abs=0.3)
    assert scores["2"]["cot_logprob"] != scores["16"]["cot_logprob"]
    assert len(result["arms"]["2"]["said"]) == family.SAMPLES
    evidence = family.as_evidence([result], SETTINGS)
    assert {unit.split("/")[0] for unit in evidence["units"]["problem"]} <= {"1-step", "2-step"}
    assert evidence["metrics"]["cot_strict"]["values"].keys() == {"family32-w16", "family32-w8", "family32-w2"}


def test_weights_are_equal_after_saving_and_reloading_and_so_are_scores(result, tmp_path):
    stored = {**result}
    family_store.write([stored], tmp_path)
    assert "weights" not in stored
    again = family_store.load(SETTINGS, 32, 0, tmp_path)
    assert family.scores(again) == result["arms"]["16"]["scores"]


def test_a_rounded_checkpoint_scores_the_same_after_saving_and_reloading(result, tmp_path):
    from mmlib.models.lm import open_checkpoint, save_checkpoint

    family_store.write([{**result}], tmp_path)
    subject = family_store.load(SETTINGS, 32, 0, tmp_path)
    family.rounded(subject, 2, SETTINGS)
    save_checkpoint(subject.model, subject.tokenizer, tmp_path / "w2")
    model, _ = open_checkpoint(tmp_path / "w2")
    for name, linear in linears(model).items():
        assert torch.equal(linear.weight, linears(subject.model)[name].weight)
    assert family.scores(subject, model) == family.scores(subject) == result["arms"]["2"]["scores"]


def test_missing_and_foreign_weights_name_the_remedy(result, tmp_path):
    with pytest.raises(UserError, match=r"w64-seed0\.safetensors is missing; run `dvc repro -s quantization-family`"):
        family_store.load(SETTINGS, 64, 0, tmp_path)
    with pytest.raises(UserError, match="width 48 is not a multiple of 32"):
        family.build_model(48, arithmetic.build_tokenizer(5), 0)


def test_a_prompt_longer_than_the_context_is_refused(result, tmp_path):
    from mmlib.models.lm import generate

    family_store.write([{**result}], tmp_path)
    subject = family_store.load(SETTINGS, 32, 0, tmp_path)
    with pytest.raises(UserError, match=r"prompt `Ana has.*` has 300 tokens, room is for 246"):
        generate(subject.model, subject.tokenizer, ["Ana has 3 ." + " ." * 296], 10)


def test_batched_generation_equals_one_by_one(result, tmp_path):
    from mmlib.models.lm import generate

    family_store.write([{**result}], tmp_path)
    subject = family_store.load(SETTINGS, 32, 0, tmp_path)
    prompts = [p.query(True) for p in subject.tests] + [subject.demonstration.solved(True)]
    alone = [generate(subject.model, subject.tokenizer, [prompt], 12)[0] for prompt in prompts]
    assert generate(subject.model, subject.tokenizer, prompts, 12, batch=len(prompts)) == alone


def test_more_problems_than_there_are_is_an_error_and_not_a_loop():
    with pytest.raises(UserError, match="numbers up to 2 give no further problem"):
        arithmetic.test_problems(100_000, 2, 2)


def test_validation_problems_are_not_tests():
    tests = arithmetic.test_problems(40, 5, 2)
    validation = arithmetic.validation_problems(40, 5, 2, tests)
    assert len({p.question for p in validation}) == 40
    assert not {p.question for p in validation} & {p.question for p in tests}


def test_every_member_has_its_learning_rate_and_length_and_one_is_stopped_early():
    settings = {**SETTINGS, "sizes": [32, 64], "steps": [60, 30], "seeds": [0, 1]}
    made = family.shards(settings, {32: 0.02, 64: 0.01})
    assert [(s["name"], s["steps"], s["learning_rate"], s["early"]) for s in made] == [
        ("w32/seed0", 60, 0.02, False), ("w32/seed1", 60, 0.02, False), ("w64/seed0", 30, 0.01, False),
        ("w64/seed1", 30, 0.01, False), ("w32/early/seed0", 3, 0.02, True), ("w32/early/seed1", 3, 0.02, True),
    ]  # fmt: skip
    trials = family_search.shards(settings)
    assert {(s["width"], s["steps"], s["learning_rate"]) for s in trials} == {
        (width, steps, rate) for width, steps in ((32, 30), (64, 15)) for rate in (0.005, 0.01)
    }


def test_the_learning_rate_with_the_best_log_probability_is_chosen_for_each_size():
    rows = [{"width": width, "learning_rate": rate, "cot_strict": 1 - rate, "cot_logprob": value}
            for width, values in ((32, (-3.0, -2.0)), (64, (-1.0, -1.0)))
            for rate, value in zip((0.01, 0.02), values, strict=True)]  # fmt: skip
    assert family_search.chosen(rows[::-1]) == {32: 0.02, 64: 0.01}


def test_learning_rates_are_chosen_without_a_test_problem(monkeypatch):
    asked, taught = [], []
    nothing = {name: [0.0] for name in ("direct_em", "cot_strict", "cot_logprob")}
    monkeypatch.setattr(family, "scores", lambda subject: asked.extend(subject.tests) or nothing)
    plain = arithmetic.documents
    monkeypatch.setattr(arithmetic, "documents", lambda *a, **k: taught.append(plain(*a, **k)) or taught[-1])
    threads = torch.get_num_threads()
    family_search.validate({"width": 32, "learning_rate": 0.01, "steps": 2, "settings": SETTINGS})
    torch.set_num_threads(threads)
    tests = {p.question for p in family.test_problems_of(SETTINGS, 1)}
    validation = {p.question for p in asked}
    assert len(validation) == SETTINGS["items"] and not validation & tests
    assert not {q for text in taught[0] for q in arithmetic.questions_of(text)} & (validation | tests)


def test_weights_tell_an_early_model_from_a_finished_one(result, tmp_path):
    family_store.write([{**result}], tmp_path)
    with pytest.raises(UserError, match=r"w32-early-seed0\.safetensors is missing"):
        family_store.load(SETTINGS, 32, 0, tmp_path, early=True)


# ---- equal bits -----------------------------------------------------------------------------------------------------


def curve(scores, sizes=(100, 400, 1600), seed=0, bits=(16, 4)):
    """Results of three members whose score at every width is `scores`, with so many bits at 16 bits a weight."""
    return [
        {"width": width, "seed": seed, "early": False,
         "arms": {str(b): {"size": {"block_bytes": size * b / 16 / 8, "total_bytes": (size * b / 16 + 50) / 8},
                           "scores": {"cot_strict": [score, 1 - score]}} for b in bits}}
        for width, size, score in zip((32, 64, 128), sizes, scores, strict=True)
    ]  # fmt: skip


def test_the_height_of_a_curve_is_the_integral_by_hand():
    found = equal_bits.compare(curve((0.2, 0.4, 0.8)), "cot_strict", "block", 4, 16)
    assert (found["low"], found["high"]) == (100, 400)
    # 16 bits: linear from 0.2 at 100 to 0.4 at 400, mean 0.3. 4 bits: its members weigh 25, 100, 400: from 0.4 to 0.8.
    assert found["scores"][16][0] == pytest.approx([0.3, 0.7]) and found["scores"][4][0] == pytest.approx([0.6, 0.4])
    with_rest = equal_bits.compare(curve((0.2, 0.4, 0.8)), "cot_strict", "total", 4, 16)
    assert (with_rest["low"], with_rest["high"]) == (150, 450)


def test_a_kink_inside_the_range_and_the_logarithm_are_kept():
    weights = equal_bits.weights([1.0, 2.0, 8.0], 1.0, 8.0)  # a third of the way in log, the kink
    assert weights == pytest.approx([1 / 6, 1 / 2, 1 / 3], abs=1e-3) and weights.sum() == pytest.approx(1)
    for wrong in ([2.0, 1.0], [2.0, 8.0]):
        with pytest.raises(ValueError, match="ascend and enclose"):
            equal_bits.weights(wrong, 1.0, 2.0)


def test_one_curve_under_two_widths_shows_no_difference_and_no_overlap_is_an_error():
    same = curve((0.2, 0.4, 0.8), bits=(16,))
    for result in same:
        result["arms"]["4"] = result["arms"]["16"]
    scores = equal_bits.compare(same, "cot_strict", "block", 4, 16)["scores"]
    assert scores[4][0] == pytest.approx(scores[16][0])
    with pytest.raises(UserError, match="no range in common; add a size"):
        equal_bits.compare(curve((0.2, 0.4, 0.8), sizes=(100, 110, 120)), "cot_strict", "block", 4, 16)


def test_evidence_at_equal_bits_has_every_pair_and_both_ways_of_counting():
    settings = {**SETTINGS, "items": 2, "widths": [8, 4], "seeds": [0, 1]}
    results = [r for seed in (0, 1) for r in curve((0.2, 0.4, 0.8), seed=seed, bits=(16, 8, 4))]
    for result in results:
        for arm in result["arms"].values():
            arm["scores"] |= {name: [-1.5, -0.5] for name in family.METRICS if name != "cot_strict"}
    metrics = family.as_evidence(results, settings)["metrics"]
    for counted in ("block", "total"):
        values = metrics[f"cot_equal_{counted}"]["values"]
        assert values.keys() == {"w4-beside-w16", "w16-beside-w4", "w4-beside-w8", "w8-beside-w4"}
        assert values["w4-beside-w16"].keys() == {"0", "1"}
        logp = metrics[f"logp_equal_{counted}"]
        assert logp["floor"] is None and logp["values"]["w4-beside-w16"]["0"] == pytest.approx([-1.5, -0.5])
    assert equal_bits.pairs([8, 2]) == []
    early = {**results[0], "early": True, "seed": 0}
    arms = family.as_evidence([*results, early], settings)["metrics"]["cot_strict"]["values"]
    assert {"early32-w16", "early32-w4", "family32-w16"} <= arms.keys() and "early64-w16" not in arms
