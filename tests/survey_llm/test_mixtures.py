"""Instruction mixtures: requests mean what they say, tests are kept apart, strategies do what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.survey_llm import mixtures as m
from mmlib.survey_llm.transformer import Decoder, Shape

RNG = np.random.default_rng(0)


def truth(rows):
    """Answers by reading a task request literally, one digit at a time."""
    plain = {
        "copy": lambda x: x, "reverse": lambda x: x[::-1], "left": lambda x: x[1:] + x[:1],
        "right": lambda x: x[-1:] + x[:-1], "halves": lambda x: x[2:] + x[:2],
        "more": lambda x: [(v + 1) % 10 for v in x],
        "less": lambda x: [(v + 9) % 10 for v in x], "complement": lambda x: [9 - v for v in x],
    }  # fmt: skip
    names, found = list(plain), []
    for row in rows.tolist():
        value = row[m.PREFIX : m.PREFIX + m.DIGITS]
        for word in row[1 : m.PREFIX]:
            if word != m.BLANK:
                value = plain[names[word - m.TASK_WORDS]](value)
        found.append(value)
    return np.array(found)


def test_requests_are_answered_right_and_never_use_a_list_of_the_tests():
    tests = m.tests(3)
    for rows in (tests["task"], tests["two-step"], m.requests("task", 200, RNG)):
        assert (truth(rows) == rows[:, m.ANSWER :]).all()
    lists = {form: rows[:, m.PREFIX : m.PREFIX + m.DIGITS] for form, rows in tests.items()}
    assert all((part == lists["task"]).all() for part in lists.values()), "every form asks about the same lists"
    assert m.held_out(lists["task"]).all() and not m.held_out(m.requests("chat", 300, RNG)[:, 4:8]).any()
    assert (tests["chat"][:, m.ANSWER :] == tests["task"][:, m.ANSWER :]).all()
    assert len(np.unique(m.PAIRS)) == m.COUNT * m.WORDINGS, "no wording stands for two operations"


@pytest.fixture
def perfect(monkeypatch):
    """A teacher that knows all operations."""
    monkeypatch.setattr(m, "answered", lambda _, rows: np.concatenate([rows[:, : m.ANSWER], truth(rows)], 1))


def test_strategies_by_a_teacher_without_errors(perfect):
    rows = m.requests("task", 60, RNG, np.array([0.9, 0.1, 0, 0, 0, 0, 0, 0]))
    harder = m.evolved(None, rows, RNG)
    assert (harder[:, m.PREFIX - 2 : m.PREFIX] >= m.TASK_WORDS).all() and (truth(harder) == harder[:, m.ANSWER :]).all()
    near = m.near_duplicates(None, rows, RNG)
    assert not m.held_out(m.lists_of(near)).any() and (truth(near) == near[:, m.ANSWER :]).all()
    assert (m.balanced(rows, 8)[:, m.PREFIX - 1] == m.TASK_WORDS).sum() == 4, "two operations: half of them each"


def test_even_an_untrained_teacher_invents_tasks_of_the_right_form():
    teacher = Decoder(Shape(m.VOCABULARY, 16, 1, positions="learned", longest=m.ANSWER + m.DIGITS), seed=0).eval()
    rows = m.invent(teacher, 30, seed=0)
    assert 20 < len(rows) <= 30 and len(np.unique(rows, axis=0)) == len(rows) and not m.held_out(m.lists_of(rows)).any()
    right = m.write("task", rows[:, m.PREFIX - 1] - m.TASK_WORDS, m.lists_of(rows), RNG)
    assert (rows[:, : m.ANSWER] == right[:, : m.ANSWER]).all() and (rows[:, m.ANSWER :] < 10).all()
    assert (m.invent(teacher, 30, seed=1)[:20] != rows[:20]).any(), "another seed invents other tasks"


def test_evidence_has_the_best_single_source_and_refuses_a_lost_problem():
    right = {"task": 1.0, "chat": 0.5, "self": 0.0, "all three": 1.0}
    results = [{"seed": s, "scores": {a: {t: [v] * 16 for t in m.TESTS} for a, v in right.items()}} for s in (0, 1)]
    made = m.as_evidence(results, {"mixture_items": 2})
    assert made["metrics"]["both"]["values"]["best single"] == made["metrics"]["both"]["values"]["task"]
    results[0]["scores"]["task"]["task"] = [1.0] * 15
    with pytest.raises(UserError, match="15 values for 16 units"):
        m.as_evidence(results, {"mixture_items": 2})
