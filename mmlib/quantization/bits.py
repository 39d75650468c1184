"""The bit-width study: which variants there are, and everything that is measured on one of them.

One variant is one shard of `engine.shard_map`: quantize a fresh copy of the 16-bit model, measure, return JSON.
"16-bit" is the packaged model after dequantization; all arithmetic is float32, so that rounding noise of a
16-bit evaluation is never mistaken for quantization loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store, text
from mmlib.evidence import Evidence
from mmlib.metrics import continuations, lm
from mmlib.models.lm import complete_greedily, open_checkpoint
from mmlib.quantization import abilities
from mmlib.quantization.model import Spec, linears, quantize_model

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE = "16-bit"
CHECKPOINT = "results/lm/checkpoint"
TEST_SEED = 20_000  # the test windows are one fixed draw; calibration seeds vary on another package's text
PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "List three colours.",
)


def variants(widths: list[int], groups: list[int], calibration_seeds: list[int]) -> list[dict[str, Any]]:
    """All arms: the reference, RTN and GPTQ at every (bits, group), and two bitsandbytes baselines.

    GPTQ comes once per calibration seed; arms without calibration have seed None. Order: longest first, so
    that two workers finish together.
    """
    grid = [(bits, group) for bits in widths for group in groups]
    gptq = [_variant("gptq", bits, group, seed) for seed in calibration_seeds for bits, group in grid]
    rtn = [_variant("rtn", bits, group) for bits, group in grid]
    return [*gptq, _variant("bnb-int8", 8), *rtn, _variant("bnb-nf4", 4), _variant("none", 16)]


def _variant(method: str, bits: int, group: int | None = None, seed: int | None = None) -> dict[str, Any]:
    arm = {"none": REFERENCE, "bnb-int8": "bnb-int8", "bnb-nf4": "bnb-nf4"}.get(method)
    arm = arm or f"{method}-w{bits}-{'row' if not group else f'g{group}'}"
    name = arm if seed is None else f"{arm}/seed{seed}"
    return {"name": name, "arm": arm, "method": method, "bits": bits, "group": group or None, "seed": seed}


@dataclass(frozen=True)
class Bench:
    """What every variant of a run shares: model, test windows, tasks, reference states."""

    model: Any
    tokenizer: Any
    original: dict[str, Tensor]  # the 16-bit linears; quantizing replaces them, it never writes into them
    windows: Tensor  # (W, L) test token ids
    reference: Tensor  # (W, L, V) log-probabilities of the 16-bit model
    tasks: tuple[abilities.Task, ...]


@lru_cache(maxsize=1)
def bench(root: Path, settings_json: str) -> Bench:
    """Load once per process. `settings_json` holds the stage's parameters (a string, to be hashable)."""
    import json

    import torch

    # One thread: with two, the order of float32 sums, and with it the last bits of every result, depends on
    # how many cores happen to be free; parallelism comes from the shards.
    torch.set_num_threads(1)
    settings = json.loads(settings_json)
    model, tokenizer = open_checkpoint(root / CHECKPOINT)
    windows = test_windows(tokenizer, settings, root)
    tasks = tuple(task_list(settings, root))
    original = {name: linear.weight.data for name, linear in linears(model).items()}
    return Bench(model, tokenizer, original, windows, lm.log_probabilities(model, windows), tasks)


def task_list(settings: dict[str, Any], root: Path) -> list[abilities.Task]:
    """The ability tasks of a run."""
    size = {"items": settings["icl_items"], "shots": settings["shots"], "choices": settings["choices"]}
    return [abilities.build(name, root, **size) for name in sorted(settings["tasks"])]


def test_windows(tokenizer: Any, settings: dict[str, Any], root: Path) -> Tensor:
    """Held-out text, (text_windows, text_tokens) token ids."""
    documents = text.documents(root, "test")
    return text.windows(tokenizer, documents, settings["text_windows"], settings["text_tokens"], TEST_SEED)


def calibration_windows(tokenizer: Any, settings: dict[str, Any], seed: int, root: Path) -> Tensor:
    """Calibration text of one seed, (calibration_windows, calibration_tokens) token ids."""
    count, tokens = settings["calibration_windows"], settings["calibration_tokens"]
    return text.windows(tokenizer, text.documents(root, "calibration"), count, tokens, seed)


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """Quantize and measure one variant: `{"variant": …, "settings": …}` -> JSON results, no times in it."""
    settings, variant = shard["settings"], shard["variant"]
    root = store.project_root()
    shared = bench(root, store.dump_json(settings))
    for name, linear in linears(shared.model).items():
        linear.weight.data = shared.original[name]
    model, size, loss = quantized(shared, variant, settings, root)
    return {
        "variant": variant,
        "size": size,
        "gptq_loss": loss,
        "text": _rounded(lm.window_metrics(model, shared.windows, shared.reference)),
        "icl": {str(shots): _icl(model, shared, shots) for shots in (0, settings["shots"])},
        "samples": complete_greedily(model, shared.tokenizer, list(PROMPTS), settings["sample_tokens"])
        if variant["seed"] in (None, settings["calibration_seeds"][0])
        else None,
    }


def quantized(
    shared: Bench, variant: dict[str, Any], settings: dict[str, Any], root: Path
) -> tuple[Any, dict[str, Any], dict[str, float] | None]:
    """The variant's model, its packed size, and GPTQ's loss per kind of linear (None for other methods)."""
    from mmlib.quantization import bnb, size

    model, method, bits = shared.model, variant["method"], variant["bits"]
    if method.startswith("bnb-"):
        return bnb.apply(model, method.removeprefix("bnb-")), size.account(model, method, bits), None
    if method == "none":
        return model, size.account(model, method, bits), None
    spec = Spec(method, bits, variant["group"], settings["act_order"], settings["damping"])
    calibration = None
    if method == "gptq":
        calibration = calibration_windows(shared.tokenizer, settings, variant["seed"], root)
        text.refuse_overlap(calibration, shared.windows)
    report = quantize_model(model, spec, calibration)
    loss = {kind: round(value, 4) for kind, value in report.loss.items()} or None
    return model, size.account(model, method, bits, spec), loss


def _icl(model: Any, shared: Bench, shots: int) -> dict[str, list[float]]:
    result: dict[str, list[float]] = {}
    for task in shared.tasks:
        scores = continuations.score(model, shared.tokenizer, task.prefix(shots), task.questions())
        for metric, values in _rounded(scores).items():
            result.setdefault(metric, []).extend(values)
    return result


def _rounded(scores: dict[str, list[float]]) -> dict[str, list[float]]:
    return {metric: [round(value, 6) for value in values] for metric, values in scores.items()}


def as_evidence(results: list[dict[str, Any]], tasks: list[abilities.Task], settings: dict[str, Any]) -> dict:
    """Everything the ledger needs from the shards: per item and per window, for every arm and seed."""
    evidence = Evidence("quantization", "quantization-bits")
    asked = settings["icl_items"] * len(settings["tasks"])
    evidence.units("icl", [unit for task in tasks for unit in task.ids()], asked=asked)
    count = settings["text_windows"]
    evidence.units("text", [f"window/{number}" for number in range(count)], asked=count)
    for name, source, shots in icl_metrics(settings["shots"]):
        floor = 1 / settings["choices"] if source == "ranking" else 0.0
        evidence.metric(name, units="icl", higher_is_better=True, floor=floor)
        for result in results:
            arm, seed = result["variant"]["arm"], result["variant"]["seed"]
            evidence.add(name, arm=arm, seed=seed, values=result["icl"][shots][source])
    for name, higher in (("nll", False), ("kl", False), ("top1", True)):
        evidence.metric(name, units="text", higher_is_better=higher, floor=None)
        for result in results:
            arm, seed = result["variant"]["arm"], result["variant"]["seed"]
            evidence.add(name, arm=arm, seed=seed, values=result["text"][name])
    return evidence.as_dict()


def icl_metrics(shots: int) -> list[tuple[str, str, str]]:
    """(evidence name, score, shots as text) of the four in-context-learning metrics."""
    short = {"exact": "em", "ranking": "rank"}
    return [(f"icl_{short[s]}_{n}shot", s, str(n)) for s in ("exact", "ranking") for n in (0, shots)]
