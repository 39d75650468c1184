"""Can fine-tuning make up for rounding? Before it (fine-tune, then GPTQ) and after it (GPTQ, then LoRA). Section 3.

The paper's two orders, on a model of the family. Before: all weights (full) or a LoRA merged into the 16-bit weights,
then GPTQ. After (LoRA_q): y = dequant(W_q) x + (alpha / r) B A x with W_q frozen; only A and B train, and they are
never merged, because the sum would no longer be a low-bit weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.quantization import arithmetic, family
from mmlib.quantization.model import GROUPS, linears

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

FOLDER = "results/quantization/family"
KINDS = tuple(kind.rpartition(".")[2] for group in GROUPS for kind in group)
METHODS = ("lora", "full")


def add_lora(model: PreTrainedModel, rank: int, alpha: int, seed: int, bits: int) -> PreTrainedModel:
    """LoRA on all seven linears of every block; everything else frozen. Step 0 changes nothing (B = 0).

    Args:
        bits: of the weights below. At fewer than 16 the weights must lie on such a grid, which is how an adapter on
            a merged model, no longer low-bit, is found out.

    Returns:
        `model` itself, with adapters inside (not the PEFT wrapper), so that every metric runs on it unchanged.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    refuse_adapters(model)
    if bits < family.FULL_BITS:
        refuse_off_grid(model, bits)
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(KINDS), lora_dropout=0.0, bias="none")
    return get_peft_model(model, config).base_model.model


def refuse_adapters(model: PreTrainedModel) -> None:
    """Raise if the model already carries adapters."""
    if found := next((name for name, _ in model.named_modules() if "lora_" in name), None):
        raise UserError(f"the model already has an adapter ({found})", "start from the quantized model without it")


def refuse_off_grid(model: PreTrainedModel, bits: int) -> None:
    """Raise if a row of a linear has more distinct values than its grids allow (one grid per 32 inputs at most)."""
    for name, linear in linears(model).items():
        allowed = 2**bits * max(1, linear.in_features // 32)
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


def tune(model: PreTrainedModel, texts: list[str], tokenizer: Any, settings: dict[str, Any], method: str, seed: int):
    """Train in place, the same texts and steps for every method; the learning rate is the method's own."""
    from mmlib.models.train import train_lm

    return train_lm(model, tokenizer, texts, steps=settings["steps"], batch=settings["batch"],
                    learning_rate=settings["learning_rates"][method], seed=seed)  # fmt: skip


def tuning_texts(base: dict[str, Any], settings: dict[str, Any], seed: int, tests: list[arithmetic.Problem]) -> list:
    """Instructions: new problems with their work shown; disjoint from the tests and drawn apart from pre-training."""
    texts = family.training_texts(base, f"tune/{seed}", settings["steps"] * settings["batch"], tests, worked=1.0)
    arithmetic.refuse_leaks(texts, tests)
    return texts


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed and one way of tuning -> scores of its arms, as JSON.

    `before/full`, `before/lora`: tuned at 16 bits, then rounded to every width. `after/<bits>`: rounded, then LoRA;
    `after/16` is the control without rounding. `base`: no training at all, rounded to every width.
    """
    import torch

    torch.set_num_threads(1)
    settings, base, seed = shard["settings"], shard["base"], shard["seed"]
    start = family.load(base, settings["width"], seed, store.project_root() / FOLDER)
    texts = tuning_texts(base, settings, seed, start.tests)
    order, _, what = shard["way"].partition("/")
    if order == "after":
        family.rounded(start, int(what), base)
        model = add_lora(start.model, settings["rank"], settings["alpha"], seed, int(what))
        loss = tune(model, texts, start.tokenizer, settings, "lora", seed)
        return {"seed": seed, "loss": round(loss, 6), "arms": {f"lora-after-w{what}": family.scores(start, model)}}
    loss = None
    if what == "lora":
        model = add_lora(start.model, settings["rank"], settings["alpha"], seed, family.FULL_BITS)
        loss = tune(model, texts, start.tokenizer, settings, "lora", seed)
        merge(model)
    elif what == "full":
        loss = tune(start.model, texts, start.tokenizer, settings, "full", seed)
    name = f"{what}-before" if what else "base"
    return {"seed": seed, "loss": loss and round(loss, 6), "arms": _at_all_widths(start, name, base)}


def _at_all_widths(subject: family.Subject, name: str, base: dict[str, Any]) -> dict[str, Any]:
    state = {key: value.clone() for key, value in subject.model.state_dict().items()}
    arms = {}
    for bits in (family.FULL_BITS, *base["widths"]):
        subject.model.load_state_dict(state)
        family.rounded(subject, bits, base)
        arms[f"{name}-w{bits}"] = family.scores(subject)
    return arms


def shards(base: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard per training seed and way; the cheap ones last."""
    ways = [*(f"before/{m}" for m in METHODS), *(f"after/{b}" for b in (family.FULL_BITS, *base["widths"])), "base"]
    return [
        {"name": f"{way}/seed{seed}", "way": way, "seed": seed, "settings": settings, "base": base}
        for way in ways
        for seed in base["seeds"]
    ]


def as_evidence(results: list[dict[str, Any]], base: dict[str, Any]) -> dict[str, Any]:
    """Per test problem, for every arm and training seed."""
    arms = {(arm, result["seed"]): scores for result in results for arm, scores in result["arms"].items()}
    return family.problem_evidence("quantization-compensation", arms, base)
