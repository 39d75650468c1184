"""Worked arithmetic as a small language: word problems of one or more steps, answered at once or with the work shown.

SmolLM2-135M solves almost none of GSM8K (1.4 % by its model card), so what rounding does to a chain of thought is
measured on models trained here, in full precision, on this language (`family`). Words are tokens, numbers too.
"""

from __future__ import annotations

import random
from collections.abc import Container
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mmlib import store
from mmlib.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 2  # 2: more than two steps
TRIES = 10_000  # draws without a new problem, before we say that there is none
PAD, END = "<pad>", "<end>"
NAMES = ("Ana", "Ben", "Cara", "Dan", "Eva", "Finn", "Gia", "Hugo", "Ida", "Jon", "Kai", "Lea")
THINGS = ("apples", "books", "coins", "eggs", "keys", "pens", "shells", "stamps")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("eats", "gives", "loses", "sells")
SIGNS = (".", "?", ";", "+", "-", "=", "has", "how", "many", "answer")


@dataclass(frozen=True)
class Problem:
    """A word problem: `Ana has 7 pens . gets 5 . how many ?`, its work `7 + 5 = 12 ;` and its answer `12`."""

    question: str
    work: str
    answer: str
    steps: int

    def solved(self, worked: bool) -> str:
        """Question and answer as one text; `worked` puts the work before the answer."""
        return f"{self.query(worked)} {self.continuation(worked)} {END}"

    def query(self, worked: bool) -> str:
        """What a model is given. A direct answer is asked for by the word `answer`, work by its absence."""
        return self.question if worked else f"{self.question} answer"

    def continuation(self, worked: bool) -> str:
        """What a model should say after `query` and before the end sign."""
        return f"{self.work} answer {self.answer}" if worked else self.answer


def draw_problem(draw: random.Random, largest: int, most: int) -> Problem:
    """A problem of 1 … `most` steps whose numbers and results all lie in 0 … `largest`."""
    steps, value = draw.randint(1, most), draw.randrange(1, largest)
    question = [draw.choice(NAMES), "has", str(value), draw.choice(THINGS), "."]
    work: list[str] = []
    for _ in range(steps):
        gain = value < 1 or (value < largest - 1 and draw.random() < 0.5)
        change = draw.randrange(1, largest - value + 1) if gain else draw.randrange(1, value + 1)
        after = value + change if gain else value - change
        question += [draw.choice(GAINS if gain else LOSSES), str(change), "."]
        work += [str(value), "+" if gain else "-", str(change), "=", str(after), ";"]
        value = after
    return Problem(" ".join([*question, "how", "many", "?"]), " ".join(work), str(value), steps)


def test_problems(count: int, largest: int, most: int, seed: int = 0) -> list[Problem]:
    """`count` different problems that no training text contains (`documents` leaves their questions out)."""
    draw, found = random.Random(f"arithmetic/test/{seed}"), {}
    for _ in range(count):
        problem = _draw_new(draw, largest, most, found)
        found[problem.question] = problem
    return list(found.values())


def validation_problems(count: int, largest: int, most: int, tests: list[Problem]) -> list[Problem]:
    """`count` different problems that are not among `tests`, for the choice of settings."""
    tested = {problem.question for problem in tests}
    drawn = test_problems(count + len(tests), largest, most, seed=1)
    return [problem for problem in drawn if problem.question not in tested][:count]


def _draw_new(draw: random.Random, largest: int, most: int, known: Container[str]) -> Problem:
    """A problem whose question is not among the `known` ones."""
    for _ in range(TRIES):
        if (problem := draw_problem(draw, largest, most)).question not in known:
            return problem
    raise UserError(f"numbers up to {largest} give no further problem that is not a test problem",
                    "raise `largest` or lower `items`")  # fmt: skip


def documents(
    count: int, largest: int, most: int, seed: str, *, worked: float, problems: int, leave_out: list[Problem]
) -> list[str]:
    """Training texts of `problems` solved problems each, all in one style, so that the first shows how to answer.

    Args:
        worked: share of documents that show their work.
        leave_out: test problems; none of their questions appears. (Their sums do, with other names: the tables
            of addition and subtraction are what is to be learned.)
    """
    draw, banned, made = random.Random(f"arithmetic/train/{seed}"), {p.question for p in leave_out}, []
    for _ in range(count):
        style, texts = draw.random() < worked, []
        while len(texts) < problems:
            texts.append(_draw_new(draw, largest, most, banned).solved(style))
        made.append(" ".join(texts))
    return made


def questions_of(text: str) -> list[str]:
    """The questions of a training text, without their answers."""
    return [part.strip().split(" ?")[0] + " ?" for part in text.split(END) if " ?" in part]


def refuse_leaks(texts: list[str], tests: list[Problem]) -> None:
    """Raise if a test question appears twice, or in a training text."""
    questions = [problem.question for problem in tests]
    if len(set(questions)) != len(questions):
        twice = next(q for q in questions if questions.count(q) > 1)
        raise UserError(f"test problem `{twice}` appears twice", "draw the test problems with `test_problems`")
    seen = {question for text in texts for question in questions_of(text)}
    if leaked := next((question for question in questions if question in seen), None):
        raise UserError(f"test problem `{leaked}` stands in the training text", "pass the tests as `leave_out`")


def build_tokenizer(largest: int) -> PreTrainedTokenizerBase:
    """One token per word and per number 0 … `largest`; pads on the left, for generation in batches."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = tuple(str(n) for n in range(largest + 1))
    words = (PAD, END, *SIGNS, *NAMES, *THINGS, *GAINS, *LOSSES, *numbers)
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=PAD))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END, padding_side="left")


def digest(problems: list[Problem]) -> str:
    """Identifies a set of test problems and their wording."""
    return store.digest({"version": VERSION, "problems": [asdict(problem) for problem in problems]})[:16]
