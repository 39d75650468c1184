"""Ours and lm-evaluation-harness on the same items and models, side by side: what `harness` prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmlib.quantization import harness

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mmlib.quantization.abilities import Task


@dataclass(frozen=True)
class Pair:
    """A task for the harness, and what our own evaluation says of its items."""

    name: str
    hash: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Any
    ours: harness.Scores


def pairs(names: list[str], items: int, shots: int, choices: int) -> list[Pair]:
    """The named tasks on the models of the pipeline.

    Raises:
        UserError: unknown task or no checkpoint.
    """
    from mmlib import store
    from mmlib.quantization import abilities
    from mmlib.quantization.bench import CHECKPOINT

    root = store.project_root()
    size = {"items": items, "shots": shots, "choices": choices}
    special = {"remapped": _remapped_pairs, "instructions": _instruction_pairs}
    # Before the model is opened: a misspelt name costs nothing.
    tasks = [abilities.build(name, root, **size) for name in names if name not in {*special, "words"}]
    made = _word_pairs(root, items) if "words" in names else []
    subject = _language_model(root / CHECKPOINT) if set(names) - {"words"} else None
    for task in tasks:
        made += _ability_pairs(subject, task, shots)
    for name in (name for name in special if name in names):
        made += special[name](subject, root, items)
    return made


def _language_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from mmlib.models.lm import open_checkpoint
    from mmlib.quantization import stored

    model, tokenizer = open_checkpoint(folder)
    stored.at_16_bits(model)
    return model, tokenizer


def _ability_pairs(subject: Any, task: Task, shots: int) -> list[Pair]:
    from mmlib.metrics import continuations

    model, tokenizer = subject
    ours = continuations.score(model, tokenizer, task.prefix(shots), task.questions())
    made = {"acc": harness.ranking_task(task, shots), "exact": harness.exact_task(task, shots, tokenizer)}
    own = {"acc": ours["ranking"], "exact": ours["exact"]}
    return [Pair(task.name, task.hash, model, tokenizer, made[key], {key: own[key]}) for key in made]


def _remapped_pairs(subject: Any, root: Any, items: int) -> list[Pair]:
    from mmlib.metrics import continuations
    from mmlib.quantization import remapped

    model, tokenizer = subject
    asked = max(1, items // remapped.CATEGORIES)
    (task,) = remapped.build(root, mappings=1, demonstrations=4, items=asked)
    shots = len(task.demonstrations)
    ours = continuations.score(model, tokenizer, task.prefix(shots), task.questions())["ranking"]
    return [Pair(task.name, task.hash, model, tokenizer, harness.ranking_task(task, shots), {"acc": ours})]


def _instruction_pairs(subject: Any, root: Any, items: int, new_tokens: int = 48) -> list[Pair]:
    from mmlib.quantization import instructions
    from mmlib.quantization.speaking import answer_greedily

    model, tokenizer = subject
    prompts = instructions.prompts(2)[:items]
    answers = answer_greedily(model, tokenizer, [prompt.text for prompt in prompts], new_tokens)
    rows = [instructions.follow(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    ours = {name: [row[name] for row in rows] for name in ("strict", "loose")}
    task = harness.instruction_task(prompts, tokenizer, new_tokens)
    return [Pair("instructions", instructions.digest(prompts), model, tokenizer, task, ours)]


def _word_pairs(root: Any, items: int) -> list[Pair]:
    """Worked problems, on the member of the family that was stopped early."""
    from mmlib import config
    from mmlib.quantization import arithmetic, compensation, family, family_store

    base = config.values("quantization.family", root) | {"items": items}
    subject = family_store.load(base, base["early_size"], base["seeds"][0], root / compensation.FOLDER, early=True)
    scores = family.scores(subject)
    ours = {"strict": scores["cot_strict"], "flexible": scores["cot_flexible"]}
    longest = max(len(p.continuation(True).split()) for p in subject.tests) + 2
    task = harness.generation_task("words", subject.demonstration, subject.tests, arithmetic.END, longest)
    return [Pair("words", arithmetic.digest(subject.tests), subject.model, subject.tokenizer, task, ours)]


def compare(names: list[str], items: int, shots: int, choices: int) -> list[str]:
    """A line per task and metric: share of points, ours and the harness's, and on how many items both agree."""
    lines = []
    for pair in pairs(names, items, shots, choices):
        ((_, found),) = harness.evaluate(pair.model, pair.tokenizer, [pair.task]).items()
        for metric, ours in pair.ours.items():
            theirs = found[metric]
            alike = sum(one == other for one, other in zip(ours, theirs, strict=True))
            shares = f"ours {sum(ours) / len(ours):.3f}, harness {sum(theirs) / len(theirs):.3f}"
            lines.append(f"{pair.name} (items {pair.hash}), {metric}: {shares}, alike on {alike} of {len(ours)} items")
    return lines
