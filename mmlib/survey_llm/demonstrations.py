"""Demonstrations in the prompt of a real model (sections 6.1, 6.2): format, mapping, instruction.

Every comparison uses the same items and, per seed, the same demonstrations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmlib.metrics import continuations
from mmlib.quantization import abilities

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

DEMONSTRATIONS = {
    "0 shots": (0, True, True), "1 shot": (1, True, True), "4 shots": (4, True, True),
    "4 shots, no instruction": (4, False, True), "4 shots, wrong answers": (4, True, False),
}  # fmt: skip


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
