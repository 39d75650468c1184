"""The bit-width study: which variants there are, and everything that is measured on one of them.

One variant is one shard of `engine.shard_map`: quantize a fresh copy of the 16-bit model, measure, return JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store, text
from mmlib.evidence import Evidence
from mmlib.quantization import abilities, instructions, remapped, word_problems
from mmlib.quantization.bench import REFERENCE, Bench, calibration_windows, open_bench
from mmlib.quantization.model import Report, Spec, linears, quantize_model
from mmlib.quantization.speaking import PROMPTS, answer_greedily

if TYPE_CHECKING:
    from torch import Tensor


def variants(
    widths: list[int],
    group: int,
    row_widths: list[int],
    calibration_seeds: list[int],
    longer_windows: list[int] | None = None,
    longer_widths: list[int] | None = None,
) -> list[dict[str, Any]]:
    """All arms: the reference, RTN and GPTQ at every grid, and two bitsandbytes baselines.

    Grids: every width with one grid per `group` inputs, `row_widths` also with one grid per output row.
    Ablation: GPTQ of `longer_widths` once more, calibrated on as many windows of `longer_windows` tokens.

    GPTQ comes once per calibration seed; arms without calibration have seed None. Order: longest first, so
    that two workers finish together (the reference is asked everything, the first seed more than later ones).
    """
    grid = [*((bits, group) for bits in widths), *((bits, None) for bits in row_widths)]
    gptq = [_variant("gptq", bits, group, seed) for seed in calibration_seeds for bits, group in grid]
    rtn = [_variant("rtn", bits, group) for bits, group in grid]
    longer = [
        _variant("gptq", bits, group, seed, tokens)
        for tokens in sorted(longer_windows or [], reverse=True)
        for seed in calibration_seeds
        for bits in longer_widths or []
    ]
    whole = [variant for variant in gptq if variant["group"] is not None]
    rows = [variant for variant in gptq if variant["group"] is None]
    return [_variant("none", 16), *whole, *longer, _variant("bnb-int8", 8), *rows, *rtn, _variant("bnb-nf4", 4)]


def _variant(
    method: str, bits: int, group: int | None = None, seed: int | None = None, tokens: int | None = None
) -> dict[str, Any]:
    arm = {"none": REFERENCE, "bnb-int8": "bnb-int8", "bnb-nf4": "bnb-nf4"}.get(method)
    arm = arm or f"{method}-w{bits}-{'row' if not group else f'g{group}'}"
    arm = arm if tokens is None else f"{arm}-windows{tokens}"
    name = arm if seed is None else f"{arm}/seed{seed}"
    made = {"name": name, "arm": arm, "method": method, "bits": bits, "group": group or None, "seed": seed}
    return made | {"tokens": tokens}  # of a calibration window; None: as in the settings


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """Quantize and measure one variant: `{"variant": …, "settings": …}` -> JSON results, no times in it.

    Answers, remapped labels and tasks without demonstrations are measured on the reference and on grouped GPTQ only,
    of the ablation's variants the text alone. Later calibration seeds answer only what a claim counts, at the widths
    that claims are about (`answer_widths`), and no remapped labels at widths that hardly vary (`once_widths`). Word
    problems are asked of the reference. What is saved is opened again before anything is measured on it.
    """
    settings, variant = shard["settings"], shard["variant"]
    root, bits = store.project_root(), variant["bits"]
    shared = open_bench(root, store.dump_json(settings))
    model, size, report = quantized(shared, variant, settings, root)
    whole = variant["tokens"] is None
    grouped = variant["method"] == "gptq" and variant["group"] is not None
    first = variant["seed"] in (None, settings["calibration_seeds"][0])
    speaks = whole and (grouped or variant["method"] == "none")
    shots = (*([0] if speaks else []), settings["shots"]) if whole else ()
    return {
        "variant": variant,
        "size": size,
        "file": saved_and_reloaded(model, report, shared.windows[:1]) if grouped and whole and first else None,
        "gptq_loss": {kind: round(value, 4) for kind, value in report.loss.items()} or None,
        "text": shared.text_scores(model),
        "icl": {str(count): shared.icl_scores(model, count) for count in shots},
        "samples": answer_greedily(model, shared.tokenizer, list(PROMPTS), settings["sample_tokens"])
        if speaks and first
        else None,
        "remapped": remapped.scores(model, shared.tokenizer, mappings(settings, root))
        if speaks and (first or bits not in settings["once_widths"])
        else None,
        "answers": answers(model, shared.tokenizer, settings, root, everything=first)
        if speaks and (first or bits in settings["answer_widths"])
        else None,
        "words": words(model, shared.tokenizer, settings) if variant["method"] == "none" else None,
    }


def words(model: Any, tokenizer: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The word problems of `arithmetic`, in English, few-shot: direct and with the work shown."""
    items = min(word_problems.ITEMS, settings["icl_items"] * len(settings["tasks"]))
    return word_problems.scores(model, tokenizer, items, settings["shots"])


def mappings(settings: dict[str, Any], root: Path) -> list[abilities.Task]:
    """The tasks with remapped labels of a run."""
    size = {"demonstrations": settings["mapping_demonstrations"], "items": settings["mapping_items"]}
    return remapped.build(root, mappings=settings["mappings"], **size)


def answers(model: Any, tokenizer: Any, settings: dict[str, Any], root: Path, everything: bool) -> list[str | None]:
    """Greedy answers to the instructions that are checked by rules; None where a later seed was not asked.

    `everything`: also the kinds that nonsense passes, which no claim counts.
    """
    prompts = requests(settings)
    asked = range(len(prompts)) if everything else floorless(settings, root)
    said = answer_greedily(model, tokenizer, [prompts[i].text for i in asked], settings["answer_tokens"])
    found: list[str | None] = [None] * len(prompts)
    for i, answer in zip(asked, said, strict=True):
        found[i] = answer
    return found


def floorless(settings: dict[str, Any], root: Path) -> list[int]:
    """Numbers of the instructions whose kind no answer that follows nothing ever passes."""
    prompts, known = requests(settings), instructions.vocabulary(root)
    nulls = instructions.null_answers(prompts, known).values()
    return instructions.floorless(prompts, [instructions.measure(prompts, rows, known) for rows in nulls])


def requests(settings: dict[str, Any]) -> list[instructions.Prompt]:
    """The instructions of a run."""
    return instructions.prompts(settings["prompts_per_kind"], settings["prompts_per_live_kind"])


def saved_and_reloaded(model: Any, report: Report, window: Tensor) -> dict[str, Any]:
    """Bytes of the model as a packed checkpoint, and whether it has the same logits when it is opened again.

    `model` goes on with the linears of the file. Meanwhile it has none: two whole models at once, in every worker,
    would be the peak of the study's memory.

    Args:
        window: token ids (1, L) to compare on.
    """
    import torch

    from mmlib.quantization import packed

    data = packed.dump(model, report.grids)
    with torch.inference_mode():
        before = model(window).logits
    for linear in linears(model).values():
        linear.weight.data = linear.weight.data.new_empty(0)
    reopened = packed.restore(data)
    with torch.inference_mode():
        same = torch.equal(before, reopened(window).logits)
    for name, linear in linears(reopened).items():
        model.get_submodule(name).weight.data = linear.weight.data
    return {**packed.measured(data), "same_logits": same}


def quantized(
    shared: Bench, variant: dict[str, Any], settings: dict[str, Any], root: Path
) -> tuple[Any, dict[str, Any], Report]:
    """The variant's model, its packed size, and what rounding reports (nothing for other methods)."""
    from mmlib.quantization import bnb, size

    model, method, bits = shared.fresh_model(), variant["method"], variant["bits"]
    if method.startswith("bnb-"):
        return bnb.apply(model, method.removeprefix("bnb-")), size.account(model, method, bits), Report()
    if method == "none":
        return model, size.account(model, method, bits), Report()
    spec = Spec(method, bits, variant["group"], settings["act_order"], settings["damping"])
    calibration = None
    if method == "gptq":
        calibration = calibration_windows(shared.tokenizer, calibrated(variant, settings), variant["seed"], root)
        text.refuse_overlap(calibration, shared.windows)
    report = quantize_model(model, spec, calibration)
    return model, size.account(model, method, bits, spec), report


def calibrated(variant: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with the variant's own length of a calibration window where it has one."""
    return settings if variant["tokens"] is None else settings | {"calibration_tokens": variant["tokens"]}


def as_evidence(
    results: list[dict[str, Any]], tasks: list[abilities.Task], settings: dict[str, Any], root: Path
) -> dict:
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
            if shots in result["icl"]:
                evidence.add(name, arm=arm, seed=seed, values=result["icl"][shots][source])
    for name, higher in (("nll", False), ("kl", False), ("top1", True)):
        evidence.metric(name, units="text", higher_is_better=higher, floor=None)
        for result in results:
            arm, seed = result["variant"]["arm"], result["variant"]["seed"]
            evidence.add(name, arm=arm, seed=seed, values=result["text"][name])
    _add_mappings(evidence, results, settings)
    _add_instructions(evidence, results, settings, root)
    return {**evidence.as_dict(), "items": {task.name: task.hash for task in tasks}}


def _add_mappings(evidence: Evidence, results: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """The unit is a mapping (the mean over its items): items of one prompt share its luck."""
    count = settings["mappings"]
    evidence.units("mapping", [f"mapping/{number}" for number in range(count)], asked=count)
    for key, name in (("remapped", "remapped_rank"), ("random", "random_label_rank")):
        evidence.metric(name, units="mapping", higher_is_better=True, floor=1 / remapped.CATEGORIES)
        for result in results:
            if result["remapped"] is not None:
                arm, seed = result["variant"]["arm"], result["variant"]["seed"]
                evidence.add(name, arm=arm, seed=seed, values=result["remapped"][key])


def _add_instructions(evidence: Evidence, results: list[dict[str, Any]], settings: dict[str, Any], root: Path) -> None:
    """Rules obeyed, by the model and by answers that follow nothing; kinds that the latter never pass stand alone."""
    prompts, known = requests(settings), instructions.vocabulary(root)
    said = {(f"null-{name}", None): rows for name, rows in instructions.null_answers(prompts, known).items()}
    for result in results:
        if result["answers"] is not None:
            said[result["variant"]["arm"], result["variant"]["seed"]] = result["answers"]
    hard = floorless(settings, root)
    evidence.units("prompt", [prompt.id for prompt in prompts], asked=len(prompts))
    evidence.units("prompt_floorless", [prompts[i].id for i in hard], asked=len(hard))
    for name in ("strict", "loose", "distinct", "known"):
        floor = 0.0 if name in ("strict", "loose") else None
        evidence.metric(f"if_{name}", units="prompt", higher_is_better=True, floor=floor)
    evidence.metric("if_floorless", units="prompt_floorless", higher_is_better=True, floor=0.0)
    for (arm, seed), rows in said.items():
        obeyed = instructions.measure([prompts[i] for i in hard], [rows[i] for i in hard], known)["strict"]
        evidence.add("if_floorless", arm=arm, seed=seed, values=obeyed)
        if None not in rows:  # the first calibration seed
            for name, values in instructions.measure(prompts, rows, known).items():
                evidence.add(f"if_{name}", arm=arm, seed=seed, values=values)


def icl_metrics(shots: int) -> list[tuple[str, str, str]]:
    """(evidence name, score, shots as text) of the four in-context-learning metrics."""
    short = {"exact": "em", "ranking": "rank"}
    return [(f"icl_{short[s]}_{n}shot", s, str(n)) for s in ("exact", "ranking") for n in (0, shots)]
