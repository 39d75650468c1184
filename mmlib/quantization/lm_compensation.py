"""Does fine-tuning repair the packaged language model? LoRA before GPTQ, and after it on frozen weights. Section 3.

The arms of `compensation`, with SmolLM2 as the subject and rows comparable with `quantization-bits`: the same
calibration, grids and tasks. A seed draws the calibration windows and the training texts; all arms of a seed share
both. `lora-after` starts from the very weights that `base` was measured on.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store, text
from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.metrics import continuations
from mmlib.metrics.continuations import Question
from mmlib.models.train import train_lm
from mmlib.quantization import lm_lessons, lora
from mmlib.quantization.bench import Bench, calibration_windows, open_bench
from mmlib.quantization.model import Spec, linears, quantize_model
from mmlib.quantization.speaking import PROMPTS, answer_greedily

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mmlib.quantization.abilities import Task
    from mmlib.quantization.stored import Grids

FULL_BITS = 16
STAGE = "quantization-lm-compensation"
VALIDATION_TEXTS = 12  # half lessons, half answers


def tune(
    shared: Bench, texts: list[str], settings: dict[str, Any], grids: dict[str, Grids], learning_rate: float, seed: int
) -> dict[str, Any]:
    """LoRA on `shared.model` as it is; what was trained, and how.

    Args:
        grids: of the frozen weights (`rounded`), empty at 16 bits; the weights are looked at before and after.

    Raises:
        UserError: the number of texts is not that of steps, or weights that must be low-bit and frozen are not.
    """
    steps = settings["steps"]
    if len(texts) != steps * settings["batch"]:
        raise UserError(f"{len(texts)} texts for {steps} steps of {settings['batch']}", "give every arm equally many")
    lora.refuse_off_grid(shared.model, grids)
    model = lora.add(shared.model, settings["rank"], settings["alpha"], seed)
    loss = train_lm(model, shared.tokenizer, texts, steps=steps, batch=settings["batch"], learning_rate=learning_rate,
                    seed=seed)  # fmt: skip
    lora.refuse_off_grid(model, grids)
    return {"steps": steps, "texts": store.digest(texts)[:16], "learning_rate": learning_rate, "loss": round(loss, 6)}


def rounded(shared: Bench, bits: int, settings: dict[str, Any], seed: int, root: Path) -> dict[str, Grids]:
    """GPTQ of `shared.model` as it is, in place, exactly as `quantization-bits` rounds; the grids. 16 bits: nothing."""
    if bits == FULL_BITS:
        return {}
    windows = calibration_windows(shared.tokenizer, settings, seed, root)
    text.refuse_overlap(windows, shared.windows)
    spec = Spec("gptq", bits, settings["group"], settings["act_order"], settings["damping"])
    return quantize_model(shared.model, spec, windows).grids


@lru_cache(maxsize=8)
def texts_of(root: Path, settings_json: str, part: str, seed: int, count: int) -> tuple[str, ...]:
    """`lm_lessons.texts`, made once per process."""
    import json

    shared = open_bench(root, settings_json)
    return tuple(lm_lessons.texts(shared, json.loads(settings_json), part, seed, count, root))


@lru_cache(maxsize=1)
def test_answers(root: Path, settings_json: str) -> tuple[str, ...]:
    """The 16-bit model's answers to the instructions of the tests, made once per process."""
    import json

    settings, shared = json.loads(settings_json), open_bench(root, settings_json)
    return tuple(lm_lessons.answered(shared, lm_lessons.instructions("test", settings["prompts"]), settings))


def measure(shared: Bench, settings: dict[str, Any], answers: tuple[str, ...]) -> dict[str, list[float]]:
    """Scores of `shared.model` as it is.

    Per item `exact_*shot` and `logprob_*shot` (nats of the right answer), per instruction `answer_nll` (nats per token
    of the 16-bit model's answer), per window of held-out text `nll` and `kl`.
    """
    model, tokenizer, found = shared.model, shared.tokenizer, {}
    for shots in (0, settings["shots"]):
        for task in shared.tasks:
            asked = [Question(f"{fact.query} ->", (f" {fact.answer}",), 0) for fact in task.items]
            scores = continuations.score(model, tokenizer, task.prefix(shots), asked)
            for name in ("exact", "logprob"):
                found.setdefault(f"{name}_{shots}shot", []).extend(round(value, 5) for value in scores[name])
    questions = lm_lessons.test_questions(shared, lm_lessons.instructions("test", settings["prompts"]), list(answers))
    sums = continuations.score(model, tokenizer, lm_lessons.opening(tokenizer), questions)["logprob"]
    lengths = [len(tokenizer(answer, add_special_tokens=False).input_ids) for answer in answers]
    found["answer_nll"] = [round(-total / length, 5) for total, length in zip(sums, lengths, strict=True)]
    return found | {name: shared.text_scores(model)[name] for name in ("nll", "kl")}


def validate(shard: dict[str, Any]) -> list[dict[str, Any]]:
    """One width at the validation seed, every learning rate -> nats per token of validation texts. No test is read.

    As many steps as the arms have: half as many chose a rate that a pilot of full length found too high. 16 bits stand
    for tuning before rounding.
    """
    shared, settings, settings_json, root = _opened(shard)
    bits, seed = shard["bits"], settings["validation_seed"]
    texts = texts_of(root, settings_json, "tune", seed, settings["steps"] * settings["batch"])
    held_out = texts_of(root, settings_json, "validate", seed, VALIDATION_TEXTS)
    shared.fresh_model()
    grids, rows = rounded(shared, bits, settings, seed, root), []
    for rate in settings["learning_rates"]:
        tune(shared, list(texts), settings, grids, rate, seed)
        rows.append({"bits": bits, "learning_rate": rate, "nll": round(nats_per_token(shared, held_out), 5)})
        lora.strip(shared.model)
    return rows


def nats_per_token(shared: Bench, texts: Sequence[str]) -> float:
    """Mean next-token loss over whole texts, all tokens alike."""
    import torch

    total, count = 0.0, 0
    for each in texts:
        ids = torch.tensor([shared.tokenizer(each, add_special_tokens=False).input_ids])  # (1, L)
        with torch.inference_mode():
            total += shared.model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def chosen(validated: list[dict[str, Any]]) -> dict[str, float]:
    """Bits (as text) -> the learning rate of the lowest loss on validation texts (the smaller one of equals)."""
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(validated, key=lambda row: row["learning_rate"]):
        kept = best.setdefault(str(row["bits"]), row)
        if row["nll"] < kept["nll"]:
            best[str(row["bits"])] = row
    return {bits: row["learning_rate"] for bits, row in best.items()}


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed and one way -> scores of its arms, as JSON.

    `base`: the 16-bit model as it is. `before`: LoRA at 16 bits; then merged, and rounded to every width. `after-w*`:
    rounded (that is `base-w*`), then LoRA on the frozen rounded weights, which is never merged.
    """
    shared, settings, settings_json, root = _opened(shard)
    way, seed = shard["way"], shard["seed"]
    answers, arms, said, trained = test_answers(root, settings_json), {}, {}, None

    def keep(arm: str) -> None:
        arms[arm] = measure(shared, settings, answers)
        if seed in (None, settings["seeds"][0]):
            said[arm] = answer_greedily(shared.model, shared.tokenizer, list(PROMPTS), settings["sample_tokens"])

    if way == "base":
        shared.fresh_model()
        keep(f"base-w{FULL_BITS}")
        return {"seed": seed, "arms": arms, "said": said, "trained": trained, "answers": list(answers)}
    texts = list(texts_of(root, settings_json, "tune", seed, settings["steps"] * settings["batch"]))
    shared.fresh_model()
    bits = FULL_BITS if way == "before" else int(way.rpartition("-w")[2])
    grids = rounded(shared, bits, settings, seed, root)
    if way != "before":
        keep(f"base-w{bits}")
    trained = tune(shared, texts, settings, grids, shard["learning_rates"][str(bits)], seed)
    keep(f"lora-{way}" if way != "before" else f"lora-before-w{FULL_BITS}")
    if way == "before":
        tuned = merged(shared)
        for width in settings["widths"]:
            _put(shared, tuned)
            rounded(shared, width, settings, seed, root)
            keep(f"lora-before-w{width}")
    lora.strip(shared.model)
    return {"seed": seed, "arms": arms, "said": said, "trained": trained}


def merged(shared: Bench) -> dict[str, Tensor]:
    """The linears with their LoRA folded in, at the 16 bits of the other models (`stored`); adapters are gone."""
    lora.merge(shared.model)
    return {name: linear.weight.data.half().float() for name, linear in linears(shared.model).items()}


def _put(shared: Bench, weights: dict[str, Tensor]) -> None:
    for name, linear in linears(shared.model).items():
        linear.weight.data = weights[name].clone()


def _opened(shard: dict[str, Any]) -> tuple[Bench, dict[str, Any], str, Path]:
    root, settings_json = store.project_root(), store.dump_json(shard["settings"])
    return open_bench(root, settings_json), shard["settings"], settings_json, root


def validation_shards(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The same learning rates, texts and steps for tuning at 16 bits and at every width."""
    return [{"name": f"rates/w{bits}", "bits": bits, "settings": settings} for bits in (FULL_BITS, *settings["widths"])]


def shards(settings: dict[str, Any], rates: dict[str, float]) -> list[dict[str, Any]]:
    """One shard per seed and way, the long ones first, and the 16-bit model without training."""
    ways = ["before", *(f"after-w{bits}" for bits in settings["widths"])]
    made = [{"name": f"{way}/seed{seed}", "way": way, "seed": seed, "settings": settings, "learning_rates": rates}
            for way in ways for seed in settings["seeds"]]  # fmt: skip
    return [*made, {"name": "base", "way": "base", "seed": None, "settings": settings, "learning_rates": rates}]


def refuse_unequal(results: list[dict[str, Any]]) -> None:
    """Raise if two arms of a seed were not trained on the same texts in the same number of steps."""
    seen: dict[int, tuple[int, str]] = {}
    for result in results:
        if result["trained"] is not None:
            effort = result["trained"]["steps"], result["trained"]["texts"]
            if seen.setdefault(result["seed"], effort) != effort:
                raise UserError(f"arms of seed {result['seed']} had unequal steps or texts", "run the stage again")


def as_evidence(
    results: list[dict[str, Any]], shared_tasks: Sequence[Task], settings: dict[str, Any]
) -> dict[str, Any]:
    """Per item, instruction and window, for every arm and seed; `*_gain`: over no training at the same width."""
    refuse_unequal(results)
    evidence = Evidence("quantization", STAGE)
    items = [unit for task in shared_tasks for unit in task.ids()]
    evidence.units("item", items, asked=settings["icl_items"] * len(settings["tasks"]))
    asked = lm_lessons.instructions("test", settings["prompts"])
    evidence.units("prompt", [each.id for each in asked], asked=settings["prompts"])
    count = settings["text_windows"]
    evidence.units("text", [f"window/{number}" for number in range(count)], asked=count)
    arms = {(arm, result["seed"]): scores for result in results for arm, scores in result["arms"].items()}
    for name, units, higher in metrics(settings["shots"]):
        floor = 0.0 if name.startswith("exact") else None
        evidence.metric(name, units=units, higher_is_better=higher, floor=floor)
        for (arm, seed), scores in arms.items():
            evidence.add(name, arm=arm, seed=seed, values=scores[name])
        evidence.metric(f"{name}_gain", units=units, higher_is_better=higher, floor=floor)
        for (arm, seed), values in gains(arms, name).items():
            evidence.add(f"{name}_gain", arm=arm, seed=seed, values=values)
    return {**evidence.as_dict(), "items": {task.name: task.hash for task in shared_tasks}}


def metrics(shots: int) -> list[tuple[str, str, bool]]:
    """(name, units, higher is better) of everything that is measured."""
    found = [(f"{name}_{count}shot", "item", True) for name in ("exact", "logprob") for count in (0, shots)]
    return [*found, ("answer_nll", "prompt", False), ("nll", "text", False), ("kl", "text", False)]


def gains(
    arms: dict[tuple[str, int | None], dict[str, list[float]]], metric: str
) -> dict[tuple[str, int], list[float]]:
    """Per unit, tuned minus untrained at the same bits and seed (of 16 bits, the one model without a seed).

    A recovery is the gain on rounded weights beyond the gain of the same LoRA on 16-bit ones: the difference of two of
    these (`lora-after-w*` minus `lora-before-w16`).
    """
    found = {}
    for (arm, seed), scores in arms.items():
        bits = int(arm.rpartition("-w")[2])
        if not arm.startswith("base"):
            untrained = arms[f"base-w{bits}", None if bits == FULL_BITS else seed][metric]
            found[arm, seed] = [round(a - b, 5) for a, b in zip(scores[metric], untrained, strict=True)]
    return found
