"""Ability tasks: items are unique, demonstrations never leak into items, one candidate is gold."""

from __future__ import annotations

import pytest

from mmlib.errors import UserError
from mmlib.quantization import abilities

needs_data = pytest.mark.usefixtures("data")


@pytest.fixture
def data(root):
    assert (root / "data/tables").is_dir(), "run `python -m mmlib fetch`"


@needs_data
@pytest.mark.parametrize("name", sorted(abilities.TASKS))
def test_a_task_is_sound(name, root):
    task = abilities.build(name, root, items=40, shots=5, choices=4)
    shown = {fact.query for fact in task.demonstrations}
    asked = {fact.query for fact in task.items}
    assert len(shown) == 5 and len(asked) == len(set(task.ids())) == 40 and not shown & asked
    for fact, question in zip(task.items, task.questions(), strict=True):
        assert question.candidates[question.gold] == f" {fact.answer}"
        assert len(set(question.candidates)) == 4 and fact.query != fact.answer
        assert not set("/,()") & set(fact.answer)


@needs_data
def test_gold_positions_are_balanced(root):
    tasks = [abilities.build(name, root, items=40, shots=5, choices=4) for name in abilities.TASKS]
    golds = [question.gold for task in tasks for question in task.questions()]
    assert all(0.15 < golds.count(k) / len(golds) < 0.35 for k in range(4))


@needs_data
def test_seed_and_settings_change_the_hash_and_nothing_else_does(root):
    def build(**changes):
        return abilities.build("capital", root, **{"items": 20, "shots": 3, "choices": 4, **changes}).hash

    assert build() == build()
    assert len({build(), build(seed=1), build(items=21), build(choices=3)}) == 4


@needs_data
def test_spot_facts(root):
    facts = {n: {f.query: f.answer for f in table(root)} for n, (_, table) in abilities.TASKS.items()}
    assert facts["capital"]["Japan"] == "Tokyo" and facts["element"]["iron"] == "Fe"
    assert facts["past"]["go"] == "went" and facts["plural"]["child"] == "children"
    assert facts["comparative"]["good" if "good" in facts["comparative"] else "big"] in ("better", "bigger")
    assert facts["continent"]["Peru"] == "South America" and facts["demonym"]["France"] == "French"


def test_prefix_reads_as_intended():
    facts = tuple(abilities.Fact(q, a) for q, a in (("Japan", "Tokyo"), ("Peru", "Lima"), ("Iran", "Tehran")))
    task = abilities.Task("capital", "Give the capital.", facts[:2], facts[2:], 2, 0)
    assert task.prefix(0) == "Give the capital.\n"
    assert task.prefix(2) == "Give the capital.\nJapan -> Tokyo\nPeru -> Lima\n"
    with pytest.raises(UserError, match="2 demonstrations, 3 asked"):
        task.prefix(3)


def test_bad_tasks_are_refused(root, monkeypatch):
    with pytest.raises(UserError, match="unknown task `capitol`"):
        abilities.build("capitol", root, items=2, shots=1, choices=2)
    twice = [abilities.Fact("a", "b"), abilities.Fact("a", "c")]
    monkeypatch.setitem(abilities.TASKS, "twice", ("x", lambda root: twice))
    with pytest.raises(UserError, match="asks `a` twice"):
        abilities.build("twice", root, items=1, shots=1, choices=2)
    monkeypatch.setitem(abilities.TASKS, "few", ("x", lambda root: [abilities.Fact("a", "b")]))
    with pytest.raises(UserError, match="has 1 facts, 5 items"):
        abilities.build("few", root, items=5, shots=1, choices=2)


def test_the_same_item_twice_is_refused_however_the_task_was_made():
    facts = tuple(abilities.Fact(q, a) for q, a in (("Japan", "Tokyo"), ("Peru", "Lima"), ("Peru", "Cusco")))
    with pytest.raises(UserError, match="task capital asks `Peru` twice; remove the duplicate item"):
        abilities.Task("capital", "Give the capital.", facts[:1], facts[1:], 2, 0)


def test_too_few_different_answers_for_the_choices_are_named():
    facts = tuple(abilities.Fact(q, a) for q, a in (("cat", "noun"), ("run", "verb"), ("dog", "noun")))
    task = abilities.Task("part", "Name it.", facts[:1], facts[1:], 4, 0)
    with pytest.raises(UserError, match=r"has 1 wrong answers for `run`, 4 choices need 3"):
        task.questions()
