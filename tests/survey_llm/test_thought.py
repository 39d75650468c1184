"""Word problems of SmolLM2: their wording, their work, what every arm is given."""

from __future__ import annotations

import re

import pytest

from mmlib.survey_llm import thought as m


@pytest.fixture(scope="module")
def asked():
    return m.tests(6, [0, 1])


def test_work_is_right_and_tells_the_same_story_as_the_question(asked):
    for problem in asked:
        steps = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)\.", m.work(problem))
        value = int(steps[0][0])
        for before, sign, change, after in steps:
            assert int(before) == value
            value += int(change) if sign == "+" else -int(change)
            assert value == int(after)
        assert str(value) == problem.answer and len(steps) == problem.steps
        numbers = re.findall(r"\d+", m.question(problem))
        assert numbers == [steps[0][0], *(change for _, _, change, _ in steps)]


def test_wording():
    problem = m.Problem("Ana has 7 pens . gets 5 . how many ?", "7 + 5 = 12 ;", "12", 1)
    expected = "Question: Ana has 7 pens. Ana gets 5 pens. How many pens does Ana have now?\nAnswer:"
    assert m.question(problem) == expected and m.work(problem) == " 7 + 5 = 12."


def test_no_test_problem_is_shown_and_seeds_show_others(asked):
    shown = [m.demonstrations(seed, worked=True) for seed in (0, 1)]
    assert shown[0] != shown[1] and not any(m.question(p) in text for p in asked for text in shown)
    assert [p.steps for p in asked] == [1] * 6 + [2] * 6
    plain = m.demonstrations(0, worked=False)
    assert plain.count(m.LEAD) == m.SHOTS == shown[0].count(m.LEAD) and "=" not in plain and "=" in shown[0]


def test_every_arm_is_given_its_work_and_scored_alike(monkeypatch, asked):
    """Right work is one's own problem's, another's is not, and the planted own work arrives where it belongs."""
    seen = {}

    def score(model, tokenizer, prefix, questions):
        seen[len(seen)] = (prefix, questions)
        return {"exact": [1.0] * len(questions), "logprob": [0.0] * len(questions)}

    monkeypatch.setattr(m.continuations, "score", score)
    monkeypatch.setattr(m, "opened", lambda root: (None, None))
    monkeypatch.setattr(
        m, "own_work", lambda model, tokenizer, prefix, asked: [f" own {i}." for i in range(len(asked))]
    )
    result = m.run({"seed": 0, "settings": {"items": 6, "seeds": [0, 1]}})
    assert list(result["scores"]) == list(m.ARMS) and result["work_right"] == [0.0] * 12
    given = {arm: [q.query for q in seen[i][1]] for i, arm in enumerate(m.ARMS)}
    for i, problem in enumerate(asked):
        start, end, right = m.question(problem), m.LEAD, m.work(problem)
        assert given["direct"][i] == start + end and given["own work"][i] == f"{start} own {i}.{end}"
        assert given["right work"][i] == start + right + end and given["another's work"][i] != given["right work"][i]
        assert given["another's work"][i].count("=") == problem.steps, "as long as the right one"
    assert seen[0][0] != seen[1][0] == seen[2][0] == seen[3][0]
    made = m.as_evidence([result], {"items": 6})
    assert made["units"]["problem2"][0] == "2-step/0" and set(made["metrics"]) == {
        "exact1", "exact2", "logprob1", "logprob2"
    }  # fmt: skip


def test_own_work_ends_before_the_answer_or_the_line(monkeypatch, tokenizer, asked):
    said = iter([" 1 + 2 = 3. The answer is 3.", " so\nQuestion: more", ""])
    monkeypatch.setattr(m, "continue_tokens", lambda *_: [tokenizer(t).input_ids for t in said])
    monkeypatch.setattr(tokenizer, "decode", lambda ids: decoded[tuple(ids)], raising=False)
    decoded = {}
    for text in (" 1 + 2 = 3. The answer is 3.", " so\nQuestion: more", ""):
        decoded[tuple(tokenizer(text).input_ids)] = text
    assert m.own_work(None, tokenizer, "", asked[:3]) == [" 1 + 2 = 3.", " so", ""]
