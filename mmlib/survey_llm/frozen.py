"""What a real, frozen language model shows without training: decoding (section 4.2.4), demonstrations (6.1, 6.2).

The model is SmolLM2-135M; every comparison uses the same prompts, items and demonstrations.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import store, text
from mmlib.evidence import Evidence
from mmlib.metrics import continuations
from mmlib.models.lm import open_checkpoint
from mmlib.quantization import abilities

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor
    from transformers import PreTrainedModel

PROMPT = 32  # tokens of a document that are given
GRAM = 4


@dataclass(frozen=True)
class Rule:
    """How a token is drawn: temperature 0 is greedy; `k` keeps the likeliest k, `p` the smallest set of mass p."""

    temperature: float = 1.0
    k: int = 0
    p: float = 1.0


RULES = {
    "greedy": Rule(0.0), "temperature 0.7": Rule(0.7), "temperature 1": Rule(1.0), "temperature 1.3": Rule(1.3),
    "top-k 40": Rule(k=40), "top-p 0.9": Rule(p=0.9),
}  # fmt: skip
HUMAN, BEAM = "text itself", "beam 4"
DEMONSTRATIONS = {
    "0 shots": (0, True, True), "1 shot": (1, True, True), "4 shots": (4, True, True),
    "4 shots, no instruction": (4, False, True), "4 shots, wrong answers": (4, True, False),
}  # fmt: skip


# ---- decoding --------------------------------------------------------------------------------------------------------


def truncated(logits: Tensor, rule: Rule) -> Tensor:
    """Probabilities (R, V) after temperature, top-k and top-p, in this order."""
    import torch

    logits = logits / (rule.temperature or 1.0)
    if rule.k:
        logits = logits.masked_fill(logits < logits.topk(rule.k, -1).values[:, -1:], -torch.inf)
    chances = logits.softmax(-1)
    if rule.p < 1:
        ordered, index = chances.sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= rule.p  # mass before this token already reaches p
        chances = chances.masked_fill(torch.zeros_like(beyond).scatter(-1, index, beyond), 0.0)
    return chances / chances.sum(-1, keepdim=True)


def pick(logits: Tensor, rule: Rule, draw: Generator) -> Tensor:
    """(R, 1) next tokens."""
    import torch

    if not rule.temperature:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(truncated(logits, rule), 1, generator=draw)


def continue_text(model: PreTrainedModel, ids: Tensor, count: int, rule: Rule, seed: int) -> tuple[Tensor, Tensor]:
    """(R, count) drawn tokens and their surprise in nats under the model itself, whatever the rule."""
    import torch

    draw, tokens, nats = torch.Generator().manual_seed(seed), [], []
    with torch.inference_mode():
        out = model(ids, use_cache=True, logits_to_keep=1)
        for _ in range(count):
            logits = out.logits[:, -1]
            tokens.append(pick(logits, rule, draw))
            nats.append(torch.logsumexp(logits, -1, keepdim=True) - logits.gather(-1, tokens[-1]))
            out = model(tokens[-1], past_key_values=out.past_key_values, use_cache=True)
    return torch.cat(tokens, 1), torch.cat(nats, 1)


def surprise(model: PreTrainedModel, ids: Tensor, count: int) -> Tensor:
    """(R, count) nats of the last `count` tokens."""
    import torch

    with torch.inference_mode():
        logits = model(ids, logits_to_keep=count + 1).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, -count:], reduction="none")


def repeated(tokens: list[int]) -> float:
    """Share of 4-grams that stood in the same continuation before."""
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams)


def distinct(tokens: list[int]) -> float:
    """Different bigrams per bigram (Li et al. 2016)."""
    grams = list(itertools.pairwise(tokens))
    return len(set(grams)) / len(grams)


def decoding(model: PreTrainedModel, windows: Tensor, arm: str, repeats: int) -> list[dict[str, list[float]]]:
    """Per repeat and prompt (first PROMPT tokens of each window): repetition, distinct bigrams, mean surprise.

    All repeats of a prompt are drawn side by side: a step costs little more for more rows.
    """
    ids, count = windows[:, :PROMPT], windows.shape[1] - PROMPT
    if arm == HUMAN:
        tokens, nats = windows[:, PROMPT:], surprise(model, windows, count)
    elif arm == BEAM:
        out = model.generate(ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=count, min_new_tokens=count,
                             num_beams=4, do_sample=False, pad_token_id=0)  # fmt: skip
        tokens, nats = out[:, PROMPT:], surprise(model, out, count)
    else:
        tokens, nats = continue_text(model, ids.repeat(repeats, 1), count, RULES[arm], seed=0)
    rows = list(zip(tokens.tolist(), nats.mean(1).tolist(), strict=True))
    parts = [rows[i : i + len(windows)] for i in range(0, len(rows), len(windows))]
    return [
        {"repeated": [round(repeated(t), 6) for t, _ in part], "distinct": [round(distinct(t), 6) for t, _ in part],
         "surprise": [round(v, 5) for _, v in part]}
        for part in parts
    ]  # fmt: skip


def speculate(target: np.ndarray, draft: np.ndarray, rng: np.random.Generator) -> tuple[int, bool]:
    """One token of speculative sampling (Leviathan et al. 2023, algorithm 1): (token, whether the draft was kept)."""
    token = int(rng.choice(len(draft), p=draft))
    if rng.random() < min(1.0, target[token] / draft[token]):
        return token, True
    rest = np.maximum(target - draft, 0)
    return int(rng.choice(len(rest), p=rest / rest.sum())), False


# ---- demonstrations --------------------------------------------------------------------------------------------------


def prompts(task: abilities.Task, arm: str, seed: int) -> str:
    """What stands before the query: the seed's own demonstrations; wrong answers are those of the next one shown."""
    shots, instruction, right = DEMONSTRATIONS[arm]
    shown = list(task.demonstrations[4 * seed : 4 * seed + shots])
    if not right:
        answers = [fact.answer for fact in shown]
        shown = [replace(fact, answer=answer) for fact, answer in zip(shown, answers[1:] + answers[:1], strict=True)]
    lines = [task.instruction] * instruction + [f"{fact.query} -> {fact.answer}" for fact in shown]
    return "\n".join(lines) + "\n"


def in_context(model: PreTrainedModel, tokenizer: Any, root: Path, shard: dict[str, Any]) -> dict[str, list[float]]:
    """Exact match and ranking of every task's items, task after task."""
    settings, found = shard["settings"], {"exact": [], "ranking": []}
    for task in tasks(root, settings):
        prefix = prompts(task, shard["arm"], shard["seed"])
        scored = continuations.score(model, tokenizer, prefix, task.questions())
        for name, values in found.items():
            values.extend(scored[name])
    return found


def tasks(root: Path, settings: dict[str, Any]) -> list[abilities.Task]:
    """Tasks with enough demonstrations for every seed to show others."""
    shots = 4 * len(settings["seeds"])
    return [abilities.build(n, root, items=settings["items"], shots=shots, choices=4) for n in settings["tasks"]]


# ---- stage -----------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def opened(root: Path) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer, read once per process."""
    return open_checkpoint(root / "results/lm/checkpoint")


def prompt_windows(tokenizer: Any, root: Path, settings: dict[str, Any]) -> Tensor:
    """(prompts, PROMPT + new) tokens: beginnings of documents."""
    length = PROMPT + settings["new"]
    return text.windows(tokenizer, text.documents(root, "test"), settings["prompts"], length, seed=0)


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One arm of decoding with all repeats, or one arm and seed of demonstrations: `scores`, one entry per seed."""
    import torch

    torch.set_num_threads(1)
    root, settings, arm = store.project_root(), shard["settings"], shard["arm"]
    model, tokenizer = opened(root)
    if shard["kind"] == "demonstrations":
        scores = [in_context(model, tokenizer, root, shard)]
    else:
        repeats = len(settings["seeds"]) if arm in RULES and arm != "greedy" else 1
        scores = decoding(model, prompt_windows(tokenizer, root, settings), arm, repeats)
    return {"kind": shard["kind"], "arm": arm, "seed": shard["seed"], "scores": scores}


def shards(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Decoding arms with all their repeats, and demonstrations per seed."""
    plans = [("decoding", arm, 0) for arm in (HUMAN, BEAM, *RULES)]
    plans += [
        ("demonstrations", arm, s) for arm in DEMONSTRATIONS for s in settings["seeds"] if arm != "0 shots" or not s
    ]
    return [
        {"name": f"{arm}/seed{seed}", "kind": kind, "arm": arm, "seed": seed, "settings": settings}
        for kind, arm, seed in plans
    ]


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any], root: Path) -> dict[str, Any]:
    """Per prompt and per item; `gap` is the distance of a continuation's surprise to that of the text itself."""
    evidence, count = Evidence("survey_llm", "survey_llm-frozen"), settings["prompts"]
    evidence.units("prompt", [f"prompt/{i}" for i in range(count)], asked=count)
    items = [unit for task in tasks(root, settings) for unit in task.ids()]
    evidence.units("item", items, asked=settings["items"] * len(settings["tasks"]))
    for name, unit in (("repeated", "prompt"), ("distinct", "prompt"), ("surprise", "prompt"), ("gap", "prompt"),
                       ("exact", "item"), ("ranking", "item")):  # fmt: skip
        floor = {"exact": 0.0, "ranking": 0.25}.get(name)
        evidence.metric(name, units=unit, higher_is_better=name in ("exact", "ranking", "distinct"), floor=floor)
    human = next(np.array(r["scores"][0]["surprise"]) for r in results if r["arm"] == HUMAN)
    for result in results:
        alone = result["arm"] in (HUMAN, BEAM, "greedy", "0 shots")
        for number, scores in enumerate(result["scores"]):
            if result["kind"] == "decoding":
                scores = scores | {"gap": abs(np.array(scores["surprise"]) - human).round(5).tolist()}
            for name, values in scores.items():
                seed = None if alone else result["seed"] + number
                evidence.add(name, arm=result["arm"], seed=seed, values=values)
    return evidence.as_dict()
