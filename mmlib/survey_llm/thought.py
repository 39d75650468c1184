"""Chain of thought with a real model (section 6.3): SmolLM2 answers word problems at once, or after work.

The work is the model's own, that of the solution, or that of another problem: the same words and as many tokens, but
nothing to learn from. Every arm ends in the same words before the answer, and all are scored alike.
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
ARMS = ("direct", "own work", "right work", "another's work")


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


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed of demonstrations: per arm and problem whether the greedy answer is right, and the right one's nats."""
    import torch

    torch.set_num_threads(1)
    root, settings, seed = store.project_root(), shard["settings"], shard["seed"]
    model, tokenizer = opened(root)
    asked = tests(settings["items"], settings["seeds"])
    worked, scores = demonstrations(seed, worked=True), {}
    own, right = own_work(model, tokenizer, worked, asked), [work(p) for p in asked]
    half = len(asked) // 2  # another problem of as many steps: the next one
    other = [right[i - i % half + (i + 1) % half] for i in range(len(asked))]
    texts = dict(zip(ARMS, ([""] * len(asked), own, right, other), strict=True))
    for arm, works in texts.items():
        prefix = worked if any(works) else demonstrations(seed, worked=False)
        candidates = [
            continuations.Question(f"{question(p)}{text}{LEAD}", (f" {p.answer}",), 0)
            for p, text in zip(asked, works, strict=True)
        ]
        found = continuations.score(model, tokenizer, prefix, candidates)
        scores[arm] = {"exact": found["exact"], "logprob": [round(v, 5) for v in found["logprob"]]}
    return {"kind": "thought", "seed": seed, "scores": scores, "own": own,
            "work_right": [float(a == b) for a, b in zip(own, right, strict=True)]}  # fmt: skip


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
