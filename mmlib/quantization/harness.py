"""The study's own items through lm-evaluation-harness: a second evaluator that knows nothing of ours.

An in-memory model and items from memory: nothing is downloaded. tests/quantization/test_harness.py shows equal scores.
"""

from __future__ import annotations

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
