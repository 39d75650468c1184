"""Which linears must stay in 16 bits? (Liu et al., fine-grained analysis of components, Fig. 2 and 4.)

A variant rounds every linear except a kept set. All linears are rounded once per width and seed, each against the
Hessian of its inputs in the 16-bit model; a variant then only picks, linear by linear, the rounded or the 16-bit
weight. So what is kept never changes how the rest is rounded, and a variant costs one evaluation. (The paper runs
GPTQ anew for each variant, on inputs from the already rounded blocks, as `quantization-bits` does.)
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmlib import store, text
from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.quantization import bitmap
from mmlib.quantization.bench import REFERENCE, Bench, calibration_windows, open_bench
from mmlib.quantization.gptq import hessian, prepare
from mmlib.quantization.model import KINDS, linears, round_stacked, visit_inputs
from mmlib.quantization.speaking import PROMPTS, answer_greedily

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ATTENTION, FFN = KINDS[:4], KINDS[4:]
NAMED = ("none", "attention", "ffn", "crucial")  # the variants of the paper
CONTROL = "random-as-ffn"  # is the FFN's ability that of its size? asked at the widths above the floor


@dataclass
class Rounding:
    """Every linear of a model, rounded, and its GPTQ loss; by full name."""

    weights: dict[str, Tensor] = field(default_factory=dict)  # (out, in)
    loss: dict[str, float] = field(default_factory=dict)


def round_all(
    model: PreTrainedModel, bits: int, group: int | None, calibration: Tensor, *, damping: float, act_order: bool
) -> Rounding:
    """GPTQ of every linear on the inputs it has in the unchanged model; `model` stays as it is.

    Args:
        calibration: token ids (W, L).
    """
    result = Rounding()

    def collect(number: int, block: nn.Module, group_of_linears: tuple[str, ...], x: Tensor) -> None:
        parts = {f"model.layers.{number}.{kind}": block.get_submodule(kind) for kind in group_of_linears}
        prepared = prepare(hessian(x), damping=damping, act_order=act_order, layer=next(iter(parts)))
        for name, (weight, loss, _) in round_stacked(parts, prepared, dict.fromkeys(parts, bits), group).items():
            result.weights[name], result.loss[name] = weight, loss.sum().item()

    visit_inputs(model, calibration, collect)
    return result


def apply_map(model: PreTrainedModel, roundings: dict[int, Rounding], bit_map: dict[str, int]) -> dict[str, int]:
    """Give every linear the weight that was rounded to its bits, in place; the bits of each.

    Args:
        roundings: by width.
        bit_map: pattern of names -> bits (`bitmap.resolve`), 16 where none matches: the linear is left as it is.

    Raises:
        UserError: a pattern names no linear, or bits that were not rounded to; nothing is changed then.
    """
    parts = linears(model)
    widths = bitmap.resolve(bit_map, list(parts))
    if missing := set(widths.values()) - {bitmap.KEPT, *roundings}:
        culprit = f"bit map: nothing was rounded to {min(missing)} bits"
        raise UserError(culprit, f"use {', '.join(map(str, sorted({*roundings, bitmap.KEPT})))}")
    for name, bits in widths.items():
        if bits != bitmap.KEPT:
            parts[name].weight.data = roundings[bits].weights[name]
    return widths


def kind(name: str) -> str:
    """`model.layers.3.mlp.up_proj` -> `up_proj`."""
    return name.rsplit(".", 1)[-1]


def crucial_kinds(loss: dict[str, float]) -> tuple[str, str, str]:
    """The paper's rule: down projection, and the two attention projections with the highest mean GPTQ loss.

    The paper does not say how losses are aggregated over blocks; the mean is used here. The loss comes from
    calibration text only.
    """
    per_kind = {k: [value for name, value in loss.items() if kind(name) == k] for k in ATTENTION}
    means = {k: sum(values) / len(values) for k, values in per_kind.items()}
    first, second = sorted(ATTENTION, key=lambda k: -means[k])[:2]
    return "down_proj", first, second


def random_subset(sizes: dict[str, int], budget: int, seed: str) -> set[str]:
    """Whole linears in random order, each taken if it still fits into `budget` weights."""
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    taken: set[str] = set()
    for name in order:
        if sizes[name] <= budget:
            taken.add(name)
            budget -= sizes[name]
    return taken


def keep_sets(sizes: dict[str, int], loss: dict[str, float], seed: int) -> dict[str, set[str]]:
    """Arm -> names kept at 16 bits.

    The FFN holds three quarters of a block, so keeping it keeps three times as many weights as keeping attention:
    a confound in the paper. Its controls: random linears of the same number of weights, as much of the FFN as
    attention has (`ffn-sample`), and as much of the FFN as the crucial set has (`ffn-as-crucial`).
    """
    crucial = crucial_kinds(loss)
    chosen = {"attention": ATTENTION, "ffn": FFN, "crucial": crucial} | {k: (k,) for k in KINDS}
    sets = {arm: {name for name in sizes if kind(name) in kinds} for arm, kinds in chosen.items()}
    for arm in ("attention", "ffn", "crucial"):
        budget = sum(sizes[name] for name in sets[arm])
        sets[f"random-as-{arm}"] = random_subset(sizes, budget, f"{arm}/{seed}")
    ffn = {name: size for name, size in sizes.items() if kind(name) in FFN}
    for arm, like in (("ffn-sample", "attention"), ("ffn-as-crucial", "crucial")):
        sets[arm] = random_subset(ffn, sum(sizes[name] for name in sets[like]), f"{arm}/{seed}")
    return {"none": set(), **sets}


def shards(widths: list[int], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard per width and calibration seed, and the 16-bit reference."""
    pairs = [(bits, seed) for bits in widths for seed in settings["calibration_seeds"]]
    made = [{"name": f"w{bits}/seed{seed}", "bits": bits, "seed": seed, "settings": settings} for bits, seed in pairs]
    return [*made, {"name": REFERENCE, "bits": bitmap.KEPT, "seed": None, "settings": settings}]


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One shard -> scores of every kept set, as JSON. Only the sets that the paper names are asked the tasks, and at
    `control_widths` as many random weights as the FFN has.

    The first seed's models of those sets, and the 16-bit one, also answer a few prompts for the report.
    """
    settings, bits, seed = shard["settings"], shard["bits"], shard["seed"]
    root = store.project_root()
    shared = open_bench(root, store.dump_json(settings))
    if bits == bitmap.KEPT:
        return {"bits": bits, "seed": None, "arms": {REFERENCE: _measure(shared, settings, True, True)}}
    calibration = calibration_windows(shared.tokenizer, settings, seed, root)
    text.refuse_overlap(calibration, shared.windows)
    how = {"damping": settings["damping"], "act_order": settings["act_order"]}
    rounding = round_all(shared.fresh_model(), bits, settings["group"] or None, calibration, **how)
    sizes = {name: weight.numel() for name, weight in rounding.weights.items()}
    arms = {}
    for arm, keep in keep_sets(sizes, rounding.loss, seed).items():
        apply_map(shared.fresh_model(keep), {bits: rounding}, {"*": bits} | dict.fromkeys(sorted(keep), bitmap.KEPT))
        named, first = arm in NAMED, seed == settings["calibration_seeds"][0]
        able = named or (arm == CONTROL and bits in settings["control_widths"])
        arms[arm] = {"kept": sum(sizes[name] for name in keep), **_measure(shared, settings, able, named and first)}
    shared.fresh_model()
    crucial = list(crucial_kinds(rounding.loss))
    return {"bits": bits, "seed": seed, "crucial": crucial, "weights": sum(sizes.values()), "arms": arms}


def _measure(shared: Bench, settings: dict[str, Any], ability: bool, speaks: bool) -> dict[str, Any]:
    model, tokens = shared.model, settings["sample_tokens"]
    exact = shared.icl_scores(model, settings["shots"])["exact"] if ability else None
    said = answer_greedily(model, shared.tokenizer, list(PROMPTS), tokens) if speaks else None
    return {"text": shared.text_scores(model), "exact": exact, "said": said}


def as_evidence(results: list[dict[str, Any]], tasks: list[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Per item and per window, for every width, kept set and seed; arms are named `w2-ffn`, `16-bit`."""
    evidence = Evidence("quantization", "quantization-components")
    asked = settings["icl_items"] * len(settings["tasks"])
    evidence.units("icl", [unit for task in tasks for unit in task.ids()], asked=asked)
    count = settings["text_windows"]
    evidence.units("text", [f"window/{number}" for number in range(count)], asked=count)
    metric = f"icl_em_{settings['shots']}shot"
    evidence.metric(metric, units="icl", higher_is_better=True, floor=0.0)
    for name, higher in (("nll", False), ("kl", False), ("top1", True)):
        evidence.metric(name, units="text", higher_is_better=higher, floor=None)
    for result in results:
        for arm, scores in result["arms"].items():
            name = arm if arm == REFERENCE else f"w{result['bits']}-{arm}"
            if scores["exact"] is not None:
                evidence.add(metric, arm=name, seed=result["seed"], values=scores["exact"])
            for key, values in scores["text"].items():
                evidence.add(key, arm=name, seed=result["seed"], values=values)
    return {**evidence.as_dict(), "items": {task.name: task.hash for task in tasks}}
