"""Chain of thought with a real model (section 6.3): SmolLM2 answers word problems at once, or after work.

The work is the model's own, that of the solution, or that of another problem with another answer: as many steps, but
they lead elsewhere. In two more arms only the last number is exchanged: another's steps that end in the right answer,
and the right steps that end in a wrong one. Before the answer all arms say the same, and all are scored alike.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.evidence import Evidence
from mmlib.metrics import continuations
from mmlib.quantization.arithmetic import Problem, draw_problem
from mmlib.quantization.speaking import continue_tokens  # what a batch of prompts is continued with, up to an end token
from mmlib.survey_llm.smol import opened

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST, STEPS, SHOTS = 20, (1, 2), 4
LEAD = " The answer is"
WORK = 32  # tokens, enough for two steps
RIGHT_END, WRONG_END = "another's steps, right number", "right steps, wrong number"
ARMS = ("direct", "own work", "right work", "another's work", RIGHT_END, WRONG_END)


def problems(count: int, steps: int, seed: str) -> list[Problem]:
    """`count` different problems of so many steps."""
    draw, found = random.Random(f"thought/{seed}/{steps}"), {}
    while len(found) < count:
        problem = draw_problem(draw, LARGEST, max(STEPS))
        if problem.steps == steps:
            found[problem.question] = problem
    return list(found.values())


def question(problem: Problem) -> str:
    """`Ana has 7 pens . gets 5 . how many ?` as English, with the word before the answer."""
    opening, *changes = problem.question.removesuffix(" how many ?").removesuffix(" .").split(" . ")
    name, thing = opening.split()[0], opening.split()[-1]
    told = "".join(f" {name} {change} {thing}." for change in changes)
    return f"Question: {opening}.{told} How many {thing} does {name} have now?\nAnswer:"


def work(problem: Problem) -> str:
    """` 7 + 5 = 12. 12 - 3 = 9.`"""
    return "".join(f" {step}." for step in problem.work.removesuffix(" ;").split(" ; "))


def demonstrations(seed: int, worked: bool) -> str:
    """SHOTS solved problems of the seed, by turns of one step and of two."""
    shown = [problems(SHOTS, step, f"shown {seed}")[i] for i in range(SHOTS // 2) for step in STEPS]
    texts = [f"{question(p)}{work(p) * worked}{LEAD} {p.answer}." for p in shown]
    return "\n\n".join(texts) + "\n\n"


def tests(items: int, seeds: list[int]) -> list[Problem]:
    """`items` problems of each number of steps that no seed shows."""
    shown = {p.question for seed in seeds for step in STEPS for p in problems(SHOTS, step, f"shown {seed}")}
    fresh = {step: [p for p in problems(2 * items, step, "asked") if p.question not in shown] for step in STEPS}
    return [problem for step in STEPS for problem in fresh[step][:items]]


def own_work(model: PreTrainedModel, tokenizer: Any, prefix: str, asked: list[Problem]) -> list[str]:
    """What the model writes greedily before it comes to the answer, or to the end of the line."""
    prompts = [tokenizer(prefix + question(p), add_special_tokens=False).input_ids for p in asked]
    ends = {i for text in ("\n", "\n\n") for i in tokenizer(text, add_special_tokens=False).input_ids}
    said = [tokenizer.decode(ids) for ids in continue_tokens(model, prompts, WORK, ends)]
    return [text.split("\n")[0].split(LEAD)[0].rstrip() for text in said]


def ended(text: str, number: int) -> str:
    """Work that says `number` in the place of its last result: ` 7 + 5 = 12.` and 9 give ` 7 + 5 = 9.`"""
    return f"{text.rpartition(' = ')[0]} = {number}."


def others(asked: list[Problem]) -> list[Problem]:
    """For every problem the next one of as many steps that has another answer.

    Raises:
        StopIteration: there is none.
    """
    around = [asked[i + 1 :] + asked[:i] for i in range(len(asked))]
    return [
        next(other for other in rest if other.steps == problem.steps and other.answer != problem.answer)
        for problem, rest in zip(asked, around, strict=True)
    ]


def works(asked: list[Problem], own: list[str]) -> dict[str, list[str]]:
    """Arm -> what stands between question and answer, for every problem."""
    right, other = [work(p) for p in asked], [work(p) for p in others(asked)]
    answers = [int(p.answer) for p in asked]
    ends = {
        RIGHT_END: [ended(text, answer) for text, answer in zip(other, answers, strict=True)],
        WRONG_END: [ended(text, answer + 1) for text, answer in zip(right, answers, strict=True)],
    }
    return {"direct": [""] * len(asked), "own work": own, "right work": right, "another's work": other} | ends


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed of demonstrations: per arm and problem whether the greedy answer is right, and the right one's nats."""
    import torch

    torch.set_num_threads(1)
    root, settings, seed = store.project_root(), shard["settings"], shard["seed"]
    model, tokenizer = opened(root)
    asked = tests(settings["items"], settings["seeds"])
    own = own_work(model, tokenizer, demonstrations(seed, worked=True), asked)
    scores = {arm: score(model, tokenizer, seed, asked, texts) for arm, texts in works(asked, own).items()}
    same = [float(text == work(p)) for text, p in zip(own, asked, strict=True)]
    return {"kind": "thought", "seed": seed, "scores": scores, "own": own, "work_right": same}


def score(model: PreTrainedModel, tokenizer: Any, seed: int, asked: list[Problem], texts: list[str]) -> dict[str, list]:
    """`exact` and `logprob` of the right answer after each problem's text; without any, demonstrations show none."""
    prefix = demonstrations(seed, worked=any(texts))
    candidates = [
        continuations.Question(f"{question(p)}{text}{LEAD}", (f" {p.answer}",), 0)
        for p, text in zip(asked, texts, strict=True)
    ]
    found = continuations.score(model, tokenizer, prefix, candidates)
    return {"exact": found["exact"], "logprob": [round(v, 5) for v in found["logprob"]]}


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """`exact1`, `exact2` and `logprob1`, `logprob2`: problems of one and of two steps."""
    evidence, count = Evidence("survey_llm", "survey_llm-smol"), settings["items"]
    for place, steps in enumerate(STEPS):
        evidence.units(f"problem{steps}", [f"{steps}-step/{i}" for i in range(count)], asked=count)
        part = slice(place * count, (place + 1) * count)
        for name in ("exact", "logprob"):
            floor = 0.0 if name == "exact" else None
            evidence.metric(f"{name}{steps}", units=f"problem{steps}", higher_is_better=True, floor=floor)
            for result in results:
                for arm, scores in result["scores"].items():
                    evidence.add(f"{name}{steps}", arm=arm, seed=result["seed"], values=scores[name][part])
    return evidence.as_dict()
