"""The study's own items through lm-evaluation-harness: a second evaluator that knows nothing of ours.

An in-memory model and items from memory: nothing is downloaded. tests/quantization/test_harness.py shows equal scores
of every kind: ranking, greedy exact match, remapped labels, worked problems, instructions. By hand, on the models of
the pipeline (`remapped`, `words` and `instructions` beside the names of in-context-learning tasks):

    python -m mmlib.quantization.harness capital past remapped words instructions --items 20
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mmlib.quantization.abilities import Task
    from mmlib.quantization.arithmetic import Problem
    from mmlib.quantization.instructions import Prompt

Scores = dict[str, list[float]]  # metric -> value per item, in the order of the items
# What the harness must find in a generated text; its two ways of reading GSM8K.
FILTERS = {"strict": r"answer (\d+)$", "flexible": r"(\d+)"}


def ranking_task(task: Task, shots: int) -> Any:
    """A `multiple_choice` task of the harness: the candidate of the highest summed log-probability (`acc`).

    Tasks with remapped labels are such tasks, too; their demonstrations are all shown.
    """
    prefix = task.prefix(shots)
    rows = [{"context": prefix + q.query, "options": list(q.candidates), "gold": q.gold} for q in task.questions()]
    return _task(task.name, task.hash, rows, {
        "output_type": "multiple_choice", "doc_to_choice": "options", "doc_to_target": "gold",
        "metric_list": [_mean_of("acc")],
    })  # fmt: skip


def exact_task(task: Task, shots: int, tokenizer: PreTrainedTokenizerBase) -> Any:
    """A `generate_until` task: the greedy continuation begins with the right answer, and the word ends there."""
    prefix = task.prefix(shots)
    questions = task.questions()
    rows = [{"context": prefix + q.query, "gold": q.candidates[q.gold]} for q in questions]
    longest = max(len(tokenizer(row["gold"], add_special_tokens=False).input_ids) for row in rows)
    return _task(f"{task.name}-exact", task.hash, rows, {
        "output_type": "generate_until", "doc_to_target": "gold", "process_results": _begins_with_gold,
        "generation_kwargs": _greedily(["\n"], longest + 1), "metric_list": [_mean_of("exact")],
    })  # fmt: skip


def _begins_with_gold(doc: dict[str, Any], said: list[str]) -> Scores:
    after = said[0].removeprefix(doc["gold"])
    return {"exact": float(after != said[0] and not after[:1].isalnum())}


def instruction_task(prompts: list[Prompt], tokenizer: PreTrainedTokenizerBase, new_tokens: int) -> Any:
    """A `generate_until` task: answers in the chat template, checked by the rules of the prompts (strict, loose)."""
    from mmlib.quantization import instructions

    def check(doc: dict[str, Any], said: list[str]) -> dict[str, float]:
        return instructions.follow(prompts[doc["number"]], said[0].strip())

    messages = [[{"role": "user", "content": prompt.text}] for prompt in prompts]
    rows = [
        {"context": tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True), "number": number}
        for number, each in enumerate(messages)
    ]
    return _task("instructions", instructions.digest(prompts), rows, {
        "output_type": "generate_until", "doc_to_target": "number", "process_results": check,
        "generation_kwargs": _greedily([tokenizer.eos_token], new_tokens),
        "metric_list": [_mean_of("strict"), _mean_of("loose")],
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
        "generation_kwargs": _greedily([end], new_tokens), "metric_list": [_mean_of("exact_match")],
    })  # fmt: skip


def _mean_of(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _greedily(until: list[str], new_tokens: int) -> dict[str, Any]:
    return {"until": until, "max_gen_toks": new_tokens, "do_sample": False}


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
) -> dict[str, Scores]:
    """Task -> metric (`acc`; `exact`; `strict`, `flexible`, `loose`) -> value per item, in the order of the items.

    Raises:
        UserError: a prompt and its answer exceed the context; the harness would cut the prompt without a word.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    for task in tasks:
        _refuse_overlong(model, tokenizer, task)
    evaluator = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
    found = simple_evaluate(model=evaluator, tasks=tasks, log_samples=True, bootstrap_iters=0)
    result: dict[str, Scores] = {}
    for name, samples in found["samples"].items():
        for sample in sorted(samples, key=lambda s: s["doc_id"]):
            for metric in sample["metrics"]:
                label = sample["filter"] if metric == "exact_match" else metric
                result.setdefault(name, {}).setdefault(label, []).append(float(sample[metric]))
    return result


def _refuse_overlong(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Any) -> None:
    limit, new = model.config.max_position_embeddings, (task.config.generation_kwargs or {}).get("max_gen_toks", 0)
    for row in task.dataset["test"]:
        longest = max(row.get("options", [""]), key=len)
        needed = len(tokenizer(row["context"] + longest, add_special_tokens=False).input_ids) + new
        if needed > limit:
            culprit = f"a prompt of {task.config.task} and its answer need {needed} tokens, the context holds {limit}"
            raise UserError(culprit, "shorten it or show fewer demonstrations")


def main(arguments: list[str] | None = None) -> None:
    """Print `evaluators.compare` for the tasks of the command line."""
    from mmlib.quantization import evaluators

    parser = argparse.ArgumentParser(prog="python -m mmlib.quantization.harness", description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="+", help="for example capital; remapped, words, instructions")
    for name, default in (("items", 20), ("shots", 5), ("choices", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args(arguments)
    print("\n".join(evaluators.compare(asked.tasks, asked.items, asked.shots, asked.choices)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
