"""Remapped labels: drawn anew for every prompt, learnable from the demonstrations only, and the control that is not."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from mmlib.errors import UserError
from mmlib.quantization import remapped


@pytest.fixture(scope="module")
def tasks(root):
    return remapped.build(root, mappings=8, demonstrations=4, items=2)


def test_labels_change_from_prompt_to_prompt_and_are_consistent_inside(tasks, root):
    label_of = {}
    words = remapped.category_words(root)
    for task in tasks:
        facts = [*task.demonstrations, *task.items]
        by_category = {c: {f.answer for f in facts if f.query in words[c]} for c in words}
        used = {c: labels for c, labels in by_category.items() if labels}
        assert len(used) == 3 and all(len(labels) == 1 for labels in used.values())
        assert len(set.union(*used.values())) == 3
        label_of[task.name] = tuple(sorted((c, *labels) for c, labels in used.items()))
    assert len(set(label_of.values())) == len(tasks)


def test_every_label_is_asked_equally_often_so_that_chance_is_a_third(tasks):
    for task in tasks:
        assert set(Counter(fact.answer for fact in task.items).values()) == {2}
        assert all(len(question.candidates) == 3 for question in task.questions())
        assert all(q.candidates[q.gold] == f" {f.answer}" for q, f in zip(task.questions(), task.items, strict=True))


def test_shuffled_labels_keep_everything_but_the_mapping(tasks):
    for task in tasks:
        control = remapped.with_random_labels(task)
        assert control.items == task.items and control.questions() == task.questions()
        assert [f.query for f in control.demonstrations] == [f.query for f in task.demonstrations]
        assert Counter(f.answer for f in control.demonstrations) == Counter(f.answer for f in task.demonstrations)
        assert control.demonstrations != task.demonstrations and control.hash != task.hash


def test_the_score_reads_the_demonstrations(tasks, root, monkeypatch):
    """An oracle that copies the label of a demonstration of the same category is right; under shuffling it is not."""
    words = remapped.category_words(root)

    def answered(prefix, questions):
        shown = dict(line.split(" -> ") for line in prefix.strip().split("\n")[1:])
        category = {word: c for c, members in words.items() for word in members}
        labels = {category[word]: label for word, label in shown.items()}
        hits = [labels[category[q.query.removesuffix(" ->")]] == q.candidates[q.gold].strip() for q in questions]
        return [float(hit) for hit in hits]

    monkeypatch.setattr(remapped, "rankings", lambda model, tokenizer, prompts: [answered(*p) for p in prompts])
    got = remapped.scores(None, None, tasks)
    assert got["remapped"] == [1.0] * len(tasks) and sum(got["random"]) < 0.7 * len(tasks)


def test_too_many_words_are_refused(root):
    with pytest.raises(UserError, match=r"category \w+ has \d+ words, 90 asked for"):
        remapped.build(root, mappings=1, demonstrations=80, items=10)


def test_an_item_among_the_demonstrations_is_refused(tasks):
    with pytest.raises(UserError, match="stands among its demonstrations"):
        dataclasses.replace(tasks[0], items=(tasks[0].demonstrations[0],))
