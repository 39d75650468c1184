"""The word problems of `arithmetic` in plain English, for the packaged language model: is it off the floor there?

Worked examples before every question, as in GSM8K's few-shot prompts; the answer at once, or after its work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.metrics import continuations
from mmlib.quantization import arithmetic
from mmlib.quantization.speaking import continue_greedily

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mmlib.quantization.arithmetic import Problem

ITEMS, LARGEST, MOST_STEPS = 100, 30, 2  # problems, numbers and steps, the last two as in the family of models
BATCH = 50  # problems: each carries the keys and values of the worked examples, 16 MB
STEP_TOKENS = 12  # `17 + 5 = 22; ` and its answer, with digits as tokens of their own
PLURALS = {"buys": "more", "finds": "more", "gets": "more", "wins": "more", "eats": "of them", "gives": "of them away",
           "loses": "of them", "sells": "of them"}  # fmt: skip


def english(problem: Problem) -> str:
    """`Ana has 7 pens . gets 5 . how many ?` -> `Ana has 7 pens. Ana gets 5 more. How many pens does Ana have?`"""
    start, *changes, _ = (part.strip() for part in problem.question.split("."))
    name, _, _, thing = start.split()
    told = [f"{name} {verb} {number} {PLURALS[verb]}." for verb, number in (change.split() for change in changes)]
    return " ".join([f"{start}.", *told, f"How many {thing} does {name} have?"])


def solution(problem: Problem, worked: bool) -> str:
    """The text that should follow `Answer:`, work first or at once."""
    return f" {problem.work.replace(' ;', ';')} answer {problem.answer}" if worked else f" {problem.answer}"


def prefix(shown: list[Problem], worked: bool) -> str:
    """Worked examples, a blank line between them."""
    return "".join(f"Question: {english(p)}\nAnswer:{solution(p, worked)}\n\n" for p in shown)


def scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: int, shots: int) -> dict[str, Any]:
    """Per problem: `direct` (greedy answer right), `strict` (generated work ends in `answer N`), `flexible` (last
    number right), and the first answers as they were said."""
    drawn = arithmetic.test_problems(items + shots, LARGEST, MOST_STEPS)
    asked, shown = drawn[:items], drawn[items:]
    queries = [f"Question: {english(problem)}\nAnswer:" for problem in asked]
    questions = [continuations.Question(q, (solution(p, False),), 0) for q, p in zip(queries, asked, strict=True)]
    direct = continuations.score(model, tokenizer, prefix(shown, False), questions)["exact"]
    before, end = prefix(shown, True), tokenizer("\n", add_special_tokens=False).input_ids[-1]
    said = []
    for start in range(0, len(queries), BATCH):
        texts = [before + query for query in queries[start : start + BATCH]]
        said += continue_greedily(model, tokenizer, texts, STEP_TOKENS * (MOST_STEPS + 1), {end})
    lines = [text.strip().split("\n")[0] for text in said]
    pairs = list(zip(lines, asked, strict=True))
    return {"direct": direct, "strict": [float(strict(*pair)) for pair in pairs],
            "flexible": [float(flexible(*pair)) for pair in pairs], "said": lines[:3],
            "asked": [english(problem) for problem in asked[:3]], "items": arithmetic.digest(drawn)}  # fmt: skip


def strict(said: str, problem: Problem) -> bool:
    """Does the line end in `answer N` with the right N?"""
    return said.rstrip(".").split()[-2:] == ["answer", problem.answer]


def flexible(said: str, problem: Problem) -> bool:
    """Is the last number of the line the right one?"""
    import re

    numbers = re.findall(r"\d+", said)
    return bool(numbers) and numbers[-1] == problem.answer
