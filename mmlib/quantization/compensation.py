"""Can fine-tuning make up for rounding? Before it (fine-tune, then GPTQ) and after it (GPTQ, then LoRA). Section 3.

The paper's two orders, on a model of the family that was stopped early, so that tuning has something left to teach.
Before: all weights (full) or a LoRA merged into the 16-bit weights, then GPTQ. After (LoRA_q): y = dequant(W_q) x +
(alpha / r) B A x with W_q frozen; only A and B train, and they are never merged, because the sum would no longer be a
low-bit weight. Distilled: as after, but the 16-bit model answered the questions, so nothing can be learned that it did
not know, and every gain is a recovery. At 16 bits "after" is "before": nothing was rounded, so it is not run twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.models.lm import generate
from mmlib.models.train import train_lm
from mmlib.quantization import arithmetic, family, family_store, stored
from mmlib.quantization.model import KINDS, linears

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

FOLDER = "results/quantization/family"
METHODS = ("lora", "full")  # of tuning before rounding
AFTER = ("after", "distilled")
TEACHER_BATCH = 256


def add_lora(model: PreTrainedModel, rank: int, alpha: int, seed: int, bits: int, group: int) -> PreTrainedModel:
    """LoRA on all seven linears of every block; everything else frozen. Step 0 changes nothing (B = 0).

    Args:
        bits: of the weights below. At fewer than 16 the weights must lie on such grids, one per `group` inputs of
            a row, which is how an adapter on a merged model, no longer low-bit, is found out.

    Returns:
        `model` itself, with adapters inside (not the PEFT wrapper), so that every metric runs on it unchanged.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    refuse_adapters(model)
    if bits < family.FULL_BITS:
        refuse_off_grid(model, bits, group)
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(KINDS), lora_dropout=0.0, bias="none")
    return get_peft_model(model, config).base_model.model


def refuse_adapters(model: PreTrainedModel) -> None:
    """Raise if the model already carries adapters."""
    if found := next((name for name, _ in model.named_modules() if "lora_" in name), None):
        raise UserError(f"the model already has an adapter ({found})", "start from the quantized model without it")


def refuse_off_grid(model: PreTrainedModel, bits: int, group: int) -> None:
    """Raise if a row of a linear has more distinct values than its grids allow (one grid per `group` inputs).

    Where a grid has as many levels as a group has weights, counting says nothing; then the linear must still be the
    one that `family.rounded` left behind.
    """
    for name, linear in linears(model).items():
        if 2**bits >= group and getattr(linear, "rounded", None) != (bits, family.fingerprint(linear)):
            raise UserError(f"{name} is not as rounding to {bits} bits left it: merged, or never quantized",
                            "put LoRA on the quantized weights, and do not merge")  # fmt: skip
        allowed = 2**bits * -(-linear.in_features // group)
        if (most := distinct_values(linear.weight.data)) > allowed:
            culprit = f"{name} has {most} values in a row, {bits} bits allow {allowed}: merged, or never quantized"
            raise UserError(culprit, "put LoRA on the quantized weights, and do not merge")


def distinct_values(weight: Tensor) -> int:
    """The largest number of distinct values in any row of (out, in)."""
    ordered = weight.sort(dim=1).values
    return int((ordered[:, 1:] != ordered[:, :-1]).sum(1).max()) + 1


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Fold the adapters into the weights and remove them, in place: only before quantization."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "lora_A"):
                child.merge()
                setattr(module, name, child.get_base_layer())
    return model


def tune(
    model: PreTrainedModel, texts: list[str], tokenizer: Any, settings: dict[str, Any], learning_rate: float, seed: int
) -> float:
    """Train in place, the same number of steps for every method; the mean loss."""
    return train_lm(model, tokenizer, texts, steps=settings["steps"], batch=settings["batch"],
                    learning_rate=learning_rate, seed=seed)  # fmt: skip


def tuning_texts(
    base: dict[str, Any], settings: dict[str, Any], seed: int, tests: list[arithmetic.Problem], part: str = "tune"
) -> list[str]:
    """Instructions: new problems with their work shown; disjoint from the tests and drawn apart from pre-training."""
    texts = family.training_texts(base, f"{part}/{seed}", settings["steps"] * settings["batch"], tests, worked=1.0)
    arithmetic.refuse_leaks(texts, tests)
    return texts


def distilled(texts: list[str], teacher: family.Subject) -> list[str]:
    """The same questions in the same order, answered by `teacher` instead of by the rules of arithmetic."""
    questions = [arithmetic.questions_of(text) for text in texts]
    shown = teacher.demonstration.solved(True)
    longest = max(len(p.continuation(True).split()) for p in teacher.tests) + 2
    prompts = [f"{shown} {question}" for row in questions for question in row]
    answers = iter(generate(teacher.model, teacher.tokenizer, prompts, longest, batch=TEACHER_BATCH))
    return [" ".join(f"{question} {next(answers)} {arithmetic.END}" for question in row) for row in questions]


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed and one way of tuning -> scores of its arms, as JSON.

    `before/full`, `before/lora`: tuned at 16 bits, then rounded to every width. `after`, `distilled`: rounded to every
    width, then LoRA; `distilled` at 16 bits, too, its control without rounding (that of `after` is `before/lora`).
    `base`: no training at all, rounded to every width.
    """
    import torch

    torch.set_num_threads(1)
    settings, base, seed = shard["settings"], shard["base"], shard["seed"]
    start = load_base(base, seed)
    texts = tuning_texts(base, settings, seed, start.tests)
    order, _, method = shard["way"].partition("/")
    if order in AFTER:
        texts = distilled(texts, start) if order == "distilled" else texts
        return {"seed": seed, **_lora_at_all_widths(start, texts, order, shard)}
    rates, loss = shard["learning_rates"], None
    if method == "lora":
        model = add_lora(start.model, settings["rank"], settings["alpha"], seed, family.FULL_BITS, base["group"])
        loss = tune(model, texts, start.tokenizer, settings, rates["lora"], seed)
        merge(model)
    elif method == "full":
        loss = tune(start.model, texts, start.tokenizer, settings, rates["full"], seed)
    name = f"{method}-before" if method else "base"
    return {"seed": seed, "losses": [loss and round(loss, 6)], **_at_all_widths(start, name, base)}


def load_base(base: dict[str, Any], seed: int) -> family.Subject:
    """The member of the family that was stopped early."""
    return family_store.load(base, base["early_size"], seed, store.project_root() / FOLDER, early=True)


def _lora_at_all_widths(start: family.Subject, texts: list[str], order: str, shard: dict[str, Any]) -> dict[str, Any]:
    settings, base, seed = shard["settings"], shard["base"], shard["seed"]
    rate = shard["learning_rates"]["distilled" if order == "distilled" else "lora"]
    losses, arms, said = [], {}, {}
    for bits in ((family.FULL_BITS,) if order == "distilled" else ()) + tuple(base["widths"]):
        begin = load_base(base, seed)
        family.rounded(begin, bits, base)
        model = add_lora(begin.model, settings["rank"], settings["alpha"], seed, bits, base["group"])
        losses.append(round(tune(model, texts, start.tokenizer, settings, rate, seed), 6))
        arms[f"lora-{order}-w{bits}"] = family.scores(start, model)
        said[f"lora-{order}-w{bits}"] = family.say(start, model, family.SAMPLES)
    return {"losses": losses, "arms": arms, "said": said}


def _at_all_widths(subject: family.Subject, name: str, base: dict[str, Any]) -> dict[str, Any]:
    stored.at_16_bits(subject.model)  # tuned weights are stored like those of pre-training
    state = {key: value.clone() for key, value in subject.model.state_dict().items()}
    arms, said, size = {}, {}, {}
    for bits in (family.FULL_BITS, *base["widths"]):
        subject.model.load_state_dict(state)
        size[str(bits)] = family.rounded(subject, bits, base)["bits_per_weight"]
        arms[f"{name}-w{bits}"] = family.scores(subject)
        said[f"{name}-w{bits}"] = family.say(subject, subject.model, family.SAMPLES)
    return {"arms": arms, "said": said, "bits_per_weight": size}


def shards(base: dict[str, Any], settings: dict[str, Any], rates: dict[str, float]) -> list[dict[str, Any]]:
    """One shard per training seed and way; the long ones first."""
    ways = ["distilled", "after", *(f"before/{method}" for method in METHODS), "base"]
    return [
        {"name": f"{way}/seed{seed}", "way": way, "seed": seed, "settings": settings, "base": base,
         "learning_rates": rates}
        for way in ways for seed in base["seeds"]
    ]  # fmt: skip


def as_evidence(results: list[dict[str, Any]], base: dict[str, Any]) -> dict[str, Any]:
    """Per test problem, for every arm and training seed; `cot_gain`, `cot_logprob_gain`: see `gains`."""
    arms = {(arm, result["seed"]): scores for result in results for arm, scores in result["arms"].items()}
    evidence = family.problem_evidence("quantization-compensation", arms, base)
    for name, of, floor in (("cot_gain", "cot_strict", 0.0), ("cot_logprob_gain", "cot_logprob", None)):
        evidence.metric(name, units="problem", higher_is_better=True, floor=floor)
        for (arm, seed), values in gains(arms, of).items():
            evidence.add(name, arm=arm, seed=seed, values=values)
    return {**evidence.as_dict(), "items": arithmetic.digest(family.test_problems_of(base))}


def gains(arms: dict[tuple[str, int], dict[str, list[float]]], metric: str) -> dict[tuple[str, int], list[float]]:
    """Per problem, what training brought over no training at the same bits and seed.

    A LoRA teaches the task at 16 bits, too. What it recovers of rounding is its gain on rounded weights minus its
    gain on 16-bit weights: the difference of two values of this metric (difference in differences).
    """
    found = {}
    for (arm, seed), scores in arms.items():
        way, _, bits = arm.rpartition("-w")
        if way != "base":
            untrained = arms[f"base-w{bits}", seed][metric]
            found[arm, seed] = [round(a - b, 5) for a, b in zip(scores[metric], untrained, strict=True)]
    return found
