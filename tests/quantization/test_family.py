"""The arithmetic language and the models trained on it: no leaks, exact weights, scores that read answers rightly."""

from __future__ import annotations

import random
import re

import pytest
import torch

from mmlib.errors import UserError
from mmlib.quantization import arithmetic, family
from mmlib.quantization.model import linears

SETTINGS = {
    "widths": [8, 2], "group": 32, "seeds": [0], "largest": 5, "items": 12, "steps": 60, "batch": 16,
    "learning_rate": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def result():
    threads = torch.get_num_threads()
    yield family.evaluate({"width": 32, "seed": 0, "settings": SETTINGS})
    torch.set_num_threads(threads)


@pytest.mark.parametrize("number", range(30))
def test_the_work_shown_is_right(number):
    """Python itself evaluates every step of the written solution."""
    problem = arithmetic.draw_problem(random.Random(number), 30)
    steps = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", problem.work)
    assert len(steps) == problem.steps and steps[-1][3] == problem.answer
    for left, sign, right, total in steps:
        assert (int(left) + int(right) if sign == "+" else int(left) - int(right)) == int(total)
        assert 0 <= int(total) <= 30


def test_no_test_question_is_trained_on_and_a_planted_one_is_found():
    tests = arithmetic.test_problems(20, 9)
    texts = arithmetic.documents(3000, 9, "x", worked=0.5, problems=2, leave_out=tests)
    arithmetic.refuse_leaks(texts, tests)
    with pytest.raises(UserError, match="stands in the training text"):
        arithmetic.refuse_leaks([*texts, tests[7].solved(True)], tests)
    with pytest.raises(UserError, match="stands in the training text"):
        arithmetic.refuse_leaks([f"{texts[0]} {tests[0].solved(False)}"], tests)
    with pytest.raises(UserError, match="appears twice"):
        arithmetic.refuse_leaks(texts, [*tests, tests[0]])


def test_leaving_out_is_what_prevents_the_leak():
    tests = arithmetic.test_problems(20, 3)
    with pytest.raises(UserError, match="stands in the training text"):
        arithmetic.refuse_leaks(arithmetic.documents(8000, 3, "x", worked=0.5, problems=2, leave_out=[]), tests)


def test_every_word_has_a_token():
    tokenizer = arithmetic.build_tokenizer(30)
    for text in arithmetic.documents(50, 30, "x", worked=0.5, problems=2, leave_out=[]):
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
    family.write_weights([stored], tmp_path)
    assert "weights" not in stored
    again = family.load(SETTINGS, 32, 0, tmp_path)
    assert family.scores(again) == result["arms"]["16"]["scores"]


def test_a_rounded_checkpoint_scores_the_same_after_saving_and_reloading(result, tmp_path):
    from mmlib.models.lm import open_checkpoint, save_checkpoint

    family.write_weights([{**result}], tmp_path)
    subject = family.load(SETTINGS, 32, 0, tmp_path)
    family.rounded(subject, 2, SETTINGS)
    save_checkpoint(subject.model, subject.tokenizer, tmp_path / "w2")
    model, _ = open_checkpoint(tmp_path / "w2")
    for name, linear in linears(model).items():
        assert torch.equal(linear.weight, linears(subject.model)[name].weight)
    assert family.scores(subject, model) == family.scores(subject) == result["arms"]["2"]["scores"]


def test_missing_and_foreign_weights_name_the_remedy(result, tmp_path):
    with pytest.raises(UserError, match=r"w64-seed0\.safetensors is missing; run `dvc repro -s quantization-family`"):
        family.load(SETTINGS, 64, 0, tmp_path)
    with pytest.raises(UserError, match="width 48 is not a multiple of 32"):
        family.build_model(48, arithmetic.build_tokenizer(5), 0)


def test_a_prompt_longer_than_the_context_is_refused(result, tmp_path):
    from mmlib.models.lm import generate

    family.write_weights([{**result}], tmp_path)
    subject = family.load(SETTINGS, 32, 0, tmp_path)
    with pytest.raises(UserError, match=r"prompt `Ana has.*` has 300 tokens, room is for 246"):
        generate(subject.model, subject.tokenizer, ["Ana has 3 ." + " ." * 296], 10)


def test_batched_generation_equals_one_by_one(result, tmp_path):
    from mmlib.models.lm import generate

    family.write_weights([{**result}], tmp_path)
    subject = family.load(SETTINGS, 32, 0, tmp_path)
    prompts = [p.query(True) for p in subject.tests] + [subject.demonstration.solved(True)]
    alone = [generate(subject.model, subject.tokenizer, [prompt], 12)[0] for prompt in prompts]
    assert generate(subject.model, subject.tokenizer, prompts, 12, batch=len(prompts)) == alone


def test_more_problems_than_there_are_is_an_error_and_not_a_loop():
    with pytest.raises(UserError, match="numbers up to 2 give no further problem"):
        arithmetic.test_problems(100_000, 2)


def test_validation_problems_are_not_tests():
    tests = arithmetic.test_problems(40, 5)
    validation = arithmetic.validation_problems(40, 5, tests)
    assert len({p.question for p in validation}) == 40
    assert not {p.question for p in validation} & {p.question for p in tests}
