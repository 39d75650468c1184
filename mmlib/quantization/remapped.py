"""Demonstrations whose labels mean something new in every prompt, so that only they can tell how to answer.

Words of a few categories are sorted under colour names drawn anew for each prompt (`Japan -> red`). Knowing the words
does not help: a model must read the mapping off the demonstrations. Control: the same prompts with the labels of the
demonstrations shuffled; what is left there owes nothing to them.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmlib.errors import UserError
from mmlib.quantization.abilities import Fact, Task, category_words
from mmlib.quantization.rankings import rankings

SYMBOLS = ("black", "blue", "green", "pink", "red", "white")
CATEGORIES = 3  # in one prompt; also the number of candidate answers


def build(root: Path, *, mappings: int, demonstrations: int, items: int) -> list[Task]:
    """One task per mapping: `demonstrations` and `items` words of each of three categories, labels drawn anew.

    Raises:
        UserError: a category has too few words.
    """
    words = category_words(root)
    short = min(words, key=lambda name: len(words[name]))
    if len(words[short]) < demonstrations + items:
        raise UserError(f"category {short} has {len(words[short])} words, {demonstrations + items} asked for",
                        "lower quantization.bits.mapping_demonstrations or mapping_items")  # fmt: skip
    return [_task(words, number, demonstrations, items) for number in range(mappings)]


def _task(words: dict[str, list[str]], number: int, demonstrations: int, items: int) -> Task:
    draw = random.Random(f"remapped/{number}")
    labels = dict(zip(draw.sample(sorted(words), CATEGORIES), draw.sample(SYMBOLS, CATEGORIES), strict=True))
    wrong = tuple(labels.values())
    facts = {
        name: [Fact(word, label, wrong) for word in draw.sample(words[name], demonstrations + items)]
        for name, label in labels.items()
    }
    shown = [fact for part in facts.values() for fact in part[:demonstrations]]
    asked = tuple(fact for part in facts.values() for fact in part[demonstrations:])
    draw.shuffle(shown)
    return Task(f"remapped-{number}", "Sort the words.", tuple(shown), asked, CATEGORIES, 0)


def with_random_labels(task: Task) -> Task:
    """The same demonstrations, items and label frequencies; which word carries which label is shuffled."""
    labels = [fact.answer for fact in task.demonstrations]
    random.Random(f"{task.name}/random").shuffle(labels)
    shown = [replace(fact, answer=label) for fact, label in zip(task.demonstrations, labels, strict=True)]
    return replace(task, demonstrations=tuple(shown))


def scores(model: Any, tokenizer: Any, tasks: list[Task]) -> dict[str, list[float]]:
    """Per mapping, the share of items whose right label is ranked first; chance is 1/3.

    `remapped`: with the demonstrations as they are. `random`: with shuffled labels.
    """
    arms = {"remapped": tasks, "random": [with_random_labels(task) for task in tasks]}
    prompts = [(task.prefix(len(task.demonstrations)), task.questions()) for of_arm in arms.values() for task in of_arm]
    shares = [round(sum(ranked) / len(ranked), 6) for ranked in rankings(model, tokenizer, prompts)]
    return {arm: shares[number * len(tasks) :][: len(tasks)] for number, arm in enumerate(arms)}
