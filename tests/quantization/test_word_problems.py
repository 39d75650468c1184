"""Word problems in English: one sentence a step, the answer read strictly and flexibly, nothing shown that is asked."""

from __future__ import annotations

import pytest

from mmlib.quantization import arithmetic, word_problems

PROBLEM = arithmetic.Problem("Ana has 7 pens . gets 5 . sells 3 . how many ?", "7 + 5 = 12 ; 12 - 3 = 9 ;", "9", 2)


def test_the_same_problem_in_english():
    assert word_problems.english(PROBLEM) == (
        "Ana has 7 pens. Ana gets 5 more. Ana sells 3 of them. How many pens does Ana have?"
    )
    assert word_problems.prefix([PROBLEM], worked=True).endswith("\nAnswer: 7 + 5 = 12; 12 - 3 = 9; answer 9\n\n")
    assert word_problems.prefix([PROBLEM], worked=False).endswith("\nAnswer: 9\n\n")


def test_every_problem_can_be_told():
    for problem in arithmetic.test_problems(200, 30, 2):
        assert word_problems.english(problem).count(problem.question.split()[0]) == problem.steps + 2


@pytest.mark.parametrize(("said", "right"), [
    ("7 + 5 = 12; 12 - 3 = 9; answer 9", (1, 1)), ("answer 9.", (1, 1)), ("so there are 9", (0, 1)),
    ("answer 19", (0, 0)), ("answer 9 or 10", (0, 0)), ("nine", (0, 0)), ("", (0, 0)),
])  # fmt: skip
def test_strict_and_flexible_reading(said, right):
    assert (word_problems.strict(said, PROBLEM), word_problems.flexible(said, PROBLEM)) == right


def test_scores_are_per_problem_and_an_answer_ends_with_its_line(tiny_llama, tokenizer, monkeypatch):
    from transformers import LlamaForCausalLM

    config = tiny_llama.config
    config.vocab_size = len(tokenizer)
    asked = []

    def say(model, tok, texts, new_tokens, ends):
        asked.extend(texts)
        assert tok.decode(sorted(ends)) == "\n"
        return [" 1 + 1 = 2; answer 2\nQuestion: 9", *[" answer 999"] * (len(texts) - 1)]

    monkeypatch.setattr(word_problems, "continue_greedily", say)
    found = word_problems.scores(LlamaForCausalLM(config).eval(), tokenizer, 5, 2)
    assert all(len(found[name]) == 5 for name in ("direct", "strict", "flexible"))
    assert found["said"] == ["1 + 1 = 2; answer 2", "answer 999", "answer 999"]
    tests = arithmetic.test_problems(7, word_problems.LARGEST, word_problems.MOST_STEPS)
    for text in asked:
        shown, _, question = text.rpartition("Question: ")
        assert shown.count("Question: ") == 2 and question.removesuffix("\nAnswer:") not in shown
    assert found["items"] == arithmetic.digest(tests)
