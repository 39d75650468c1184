"""The study's own items through lm-evaluation-harness: a second evaluator that knows nothing of ours.

An in-memory model and items from memory: nothing is downloaded. tests/quantization/test_harness.py shows equal scores.
By hand, on the language model of the pipeline:

    python -m mmlib.quantization.harness capital past --items 20
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mmlib.quantization.abilities import Task
    from mmlib.quantization.arithmetic import Problem

# What the harness must find in a generated text; its two ways of reading GSM8K.
FILTERS = {"strict": r"answer (\d+)$", "flexible": r"(\d+)"}


def ranking_task(task: Task, shots: int) -> Any:
    """A `multiple_choice` task of the harness: the candidate of the highest summed log-probability (`acc`)."""
    prefix = task.prefix(shots)
    rows = [{"context": prefix + q.query, "options": list(q.candidates), "gold": q.gold} for q in task.questions()]
    return _task(task.name, task.hash, rows, {
        "output_type": "multiple_choice", "doc_to_choice": "options", "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    })  # fmt: skip


def generation_task(name: str, demonstration: Problem, problems: list[Problem], end: str, new_tokens: int) -> Any:
    """A `generate_until` task: worked problems after one demonstration, strict and flexible exact match."""
    from mmlib.quantization import arithmetic

    shown = demonstration.solved(True)
    rows = [{"context": f"{shown} {p.query(True)}", "gold": p.answer} for p in problems]
    last = {"function": "regex", "group_select": -1}
    filters = [
        {"name": key, "filter": [{**last, "regex_pattern": pattern}, {"function": "take_first"}]}
        for key, pattern in FILTERS.items()
    ]
    return _task(name, arithmetic.digest(problems), rows, {
        "output_type": "generate_until", "doc_to_target": "gold", "filter_list": filters,
        "generation_kwargs": {"until": [end], "max_gen_toks": new_tokens, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    })  # fmt: skip


def _task(name: str, version: str, rows: list[dict[str, Any]], how: dict[str, Any]) -> Any:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    shared = {
        "task": name, "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)}, "test_split": "test",
        "doc_to_text": "context", "target_delimiter": "", "metadata": {"version": version},
    }  # fmt: skip
    return ConfigurableTask(config={**shared, **how})


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: list[Any], batch: int = 1
) -> dict[str, dict[str, list[float]]]:
    """Task -> metric (`acc`; `strict`, `flexible`) -> value per item, in the order of the items."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    evaluator = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
    found = simple_evaluate(model=evaluator, tasks=tasks, log_samples=True, bootstrap_iters=0)
    result: dict[str, dict[str, list[float]]] = {}
    for name, samples in found["samples"].items():
        for sample in sorted(samples, key=lambda s: s["doc_id"]):
            metric = "acc" if "acc" in sample else sample["filter"]
            value = sample["acc"] if "acc" in sample else sample["exact_match"]
            result.setdefault(name, {}).setdefault(metric, []).append(float(value))
    return result


def compare(names: list[str], items: int, shots: int, choices: int) -> list[str]:
    """A line per ability task: share of right answers by ranking, ours and the harness's, on the language model.

    Raises:
        UserError: unknown task or no checkpoint.
    """
    from mmlib import store
    from mmlib.metrics import continuations
    from mmlib.models.lm import open_checkpoint
    from mmlib.quantization import abilities
    from mmlib.quantization.bench import CHECKPOINT

    root = store.project_root()
    tasks = [abilities.build(name, root, items=items, shots=shots, choices=choices) for name in names]
    model, tokenizer = open_checkpoint(root / CHECKPOINT)
    found = evaluate(model, tokenizer, [ranking_task(task, shots) for task in tasks])
    lines = []
    for task in tasks:
        ours = continuations.score(model, tokenizer, task.prefix(shots), task.questions())["ranking"]
        theirs = found[task.name]["acc"]
        alike = sum(one == other for one, other in zip(ours, theirs, strict=True))
        shares = f"ours {sum(ours) / items:.3f}, harness {sum(theirs) / items:.3f}"
        lines.append(f"{task.name} (items {task.hash}): {shares}, alike on {alike} of {items} items")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Print `compare` for the tasks of the command line."""
    parser = argparse.ArgumentParser(prog="python -m mmlib.quantization.harness", description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="+", help="ability tasks, for example capital")
    for name, default in (("items", 20), ("shots", 5), ("choices", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args(arguments)
    print("\n".join(compare(asked.tasks, asked.items, asked.shots, asked.choices)))


if __name__ == "__main__":
    from mmlib.errors import UserError

    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
