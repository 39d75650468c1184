"""What the packaged language model is fine-tuned on: half lessons, half answers of its own 16-bit self.

Lessons are facts of the study's tasks, as the tests ask them (`Peru -> Lima`), right by the tables; a model can learn
from them what it did not know. Answers are those of the 16-bit model to instructions about common things, in its own
chat template; from them it can only regain what rounding took. Facts and things fall into three parts, one for tests,
one for the choice of a learning rate, one for training, so that nothing that is scored was seen.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import text
from mmlib.errors import UserError
from mmlib.metrics.continuations import Question
from mmlib.quantization import abilities
from mmlib.quantization.speaking import answer_greedily

if TYPE_CHECKING:
    from mmlib.quantization.bench import Bench

WORDINGS = (
    "What is {}?",
    "Describe {} in one sentence.",
    "Where would you find {}?",
    "Write one sentence about {}.",
    "What is {} used for?",
    "Ask me a question about {}.",
)
TEST_WORDINGS = 2  # instructions about each thing of the tests and of validation
VALIDATION_THINGS = 4
VALIDATION_FACTS = 6  # of each task
PARTS = ("test", "validate", "tune")


@dataclass(frozen=True)
class Instruction:
    """A request about one thing."""

    wording: int
    thing: str

    @property
    def text(self) -> str:
        """The request as the user writes it."""
        return WORDINGS[self.wording].format(f"{'an' if self.thing[0] in 'aeiou' else 'a'} {self.thing}")

    @property
    def id(self) -> str:
        """The unit of resampling, by wording."""
        return f"{self.wording}/{self.thing}"


def things() -> list[str]:
    """The nouns of the tables, in one fixed random order."""
    with abilities.WORDS.open(newline="", encoding="utf-8") as stream:
        nouns = [row["word"] for row in csv.DictReader(stream) if row["kind"] == "noun"]
    random.Random("things").shuffle(nouns)
    return nouns


def things_of(part: str, prompts: int) -> list[str]:
    """The things of one part; `prompts` is the number of instructions of the tests."""
    tests = -(-prompts // TEST_WORDINGS)
    nouns = things()
    cuts = {"test": (0, tests), "validate": (tests, tests + VALIDATION_THINGS),
            "tune": (tests + VALIDATION_THINGS, len(nouns))}  # fmt: skip
    first, last = cuts[part]
    if last > len(nouns) or first >= last:
        culprit = f"{prompts} instructions leave no thing for `{part}`"
        raise UserError(culprit, "lower quantization.lm_compensation.prompts")
    return nouns[first:last]


def instructions(part: str, prompts: int) -> list[Instruction]:
    """All instructions of one part; of the tests exactly `prompts`, each wording about equally often."""
    named = things_of(part, prompts)
    if part == "tune":
        return [Instruction(wording, thing) for thing in named for wording in range(len(WORDINGS))]
    made = [Instruction((TEST_WORDINGS * number + step) % len(WORDINGS), thing)
            for number, thing in enumerate(named) for step in range(TEST_WORDINGS)]  # fmt: skip
    return made[:prompts] if part == "test" else made


def facts_of(part: str, settings: dict[str, Any], root: Path) -> dict[str, list[abilities.Fact]]:
    """Task -> its facts of a part, in the tables' random order; tests are `abilities.build`'s items."""
    found = {}
    for name in sorted(settings["tasks"]):
        table = abilities.TASKS[name][1](root)
        random.Random(f"{name}/0").shuffle(table)  # as `abilities.build` does
        tests = settings["shots"] + settings["icl_items"]
        cuts = {"test": (settings["shots"], tests), "validate": (tests, tests + VALIDATION_FACTS),
                "tune": (tests + VALIDATION_FACTS, len(table))}  # fmt: skip
        found[name] = table[slice(*cuts[part])]
        if part == "tune" and len(found[name]) < settings["facts"]:
            raise UserError(f"task {name} has {len(found[name])} facts left to teach, a lesson has {settings['facts']}",
                            "lower quantization.lm_compensation.facts or icl_items")  # fmt: skip
    return found


def lessons(part: str, count: int, settings: dict[str, Any], seed: int, root: Path) -> list[str]:
    """`count` texts of one task each, in turn: its instruction and `facts` facts, which teach any number of shots."""
    known, draw = facts_of(part, settings, root), random.Random(f"lessons/{part}/{seed}")
    made = []
    for number in range(count):
        name = sorted(known)[number % len(known)]
        drawn = draw.sample(known[name], min(settings["facts"], len(known[name])))
        made.append("\n".join([abilities.TASKS[name][0], *(f"{fact.query} -> {fact.answer}" for fact in drawn)]) + "\n")
    return made


def chat(tokenizer: Any, instruction: str, answer: str) -> str:
    """An instruction and its answer in the model's chat template, as training text."""
    return opening(tokenizer) + f"{instruction}{closing(tokenizer)}{answer}"


@lru_cache(maxsize=1)
def _template(tokenizer: Any) -> tuple[str, str]:
    marker = "\0"
    message = [{"role": "user", "content": marker}]
    before, after = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True).split(marker)
    return before, after


def opening(tokenizer: Any) -> str:
    """What the chat template puts before a user's words."""
    return _template(tokenizer)[0]


def closing(tokenizer: Any) -> str:
    """What the chat template puts between a user's words and the answer."""
    return _template(tokenizer)[1]


def answered(shared: Bench, asked: list[Instruction], settings: dict[str, Any]) -> list[str]:
    """The 16-bit model's greedy answers; `shared.model` has no adapter before, and its 16-bit weights after."""
    model = shared.fresh_model()
    said = answer_greedily(model, shared.tokenizer, [each.text for each in asked], settings["answer_tokens"])
    return [answer or "." for answer in said]  # a model that says nothing: its answer must have a likelihood


def texts(shared: Bench, settings: dict[str, Any], part: str, seed: int, count: int, root: Path) -> list[str]:
    """`count` texts of `tune` or `validate`: lessons and distilled answers, one after the other.

    Raises:
        UserError: a test item or a test's instruction stands in them, or text of the test windows.
    """
    asked = instructions(part, settings["prompts"])
    random.Random(f"instructions/{part}/{seed}").shuffle(asked)
    asked = asked[: count // 2]
    said = answered(shared, asked, settings)
    distilled = [chat(shared.tokenizer, each.text, answer) for each, answer in zip(asked, said, strict=True)]
    taught = lessons(part, count - len(distilled), settings, seed, root)
    made = [row for pair in zip(taught, distilled, strict=False) for row in pair] + taught[len(distilled) :]
    refuse_leaks(made, shared, settings)
    return made


def refuse_leaks(made: list[str], shared: Bench, settings: dict[str, Any]) -> None:
    """Raise if a text of training or validation holds something that is scored."""
    import torch

    items = {f"{fact.query} -> {fact.answer}" for task in shared.tasks for fact in task.items}
    asked = {each.text for each in instructions("test", settings["prompts"])}
    for row in made:
        found = [*(line for line in row.splitlines() if line in items), *(each for each in asked if each in row)]
        if leaked := next(iter(found), None):
            raise UserError(f"test item `{leaked}` stands in a training text", "draw both from disjoint parts")
        ids = shared.tokenizer(row, add_special_tokens=False).input_ids
        text.refuse_overlap(torch.tensor([ids]), shared.windows)


def test_questions(shared: Bench, asked: list[Instruction], said: list[str]) -> list[Question]:
    """The 16-bit model's answers as the one candidate, after `opening`: how likely does a model find them?"""
    between = closing(shared.tokenizer)
    return [Question(each.text + between, (answer,), 0) for each, answer in zip(asked, said, strict=True)]
