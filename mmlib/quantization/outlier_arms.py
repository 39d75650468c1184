"""The arms of the outlier study and their measurement: scale x sites x threshold x dimensions rounded as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmlib import store, text
from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.quantization import outliers
from mmlib.quantization.bench import REFERENCE, Bench, calibration_windows, open_bench, task_list
from mmlib.quantization.speaking import PROMPTS, answer_greedily

EVERYTHING = "everything"  # rounded, no outlier kept


@dataclass(frozen=True)
class Case:
    """One setting that the paper leaves open: INT8 scale, sites where outliers are counted, and from which |x| on."""

    scale: str
    sites: str
    threshold: float

    @property
    def name(self) -> str:
        """As it stands in the names of arms: `token-residual4`."""
        return f"{self.scale}-{self.sites}{self.threshold:g}"


def parse_case(case: str) -> Case:
    """`token/residual/4` -> Case.

    Raises:
        UserError: another form, scale or set of sites.
    """
    scale, _, rest = case.partition("/")
    sites, _, threshold = rest.partition("/")
    known = scale in outliers.SCALES and sites in outliers.SITE_SETS
    if not known or not threshold.replace(".", "", 1).isdigit():
        raise UserError(f"unknown outlier case `{case}`", "write scale, sites and threshold: token/residual/4")
    return Case(scale, sites, float(threshold))


def shards(cases: list[str], key_cases: list[str], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard per scale and calibration seed, with all its cases; the arms without outliers need no calibration.

    The scale of the most cases comes first, so that two workers finish together.
    """
    if strange := set(key_cases) - set(cases):
        raise UserError(f"key case `{min(strange)}` is not a case", "list it in quantization.outliers.cases too")
    named = [parse_case(case).scale for case in cases]
    scales = sorted(set(named), key=lambda scale: (-named.count(scale), scale))
    made = [
        {"name": f"{scale}/seed{seed}", "cases": [case for case in cases if parse_case(case).scale == scale],
         "key_cases": key_cases, "seed": seed, "settings": settings}
        for scale in scales
        for seed in settings["calibration_seeds"]
    ]  # fmt: skip
    bare = {"cases": [], "key_cases": [], "seed": None, "settings": settings}
    return [*made, {"name": "bare", "scales": scales, **bare}]


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One shard -> scores of its arms, and which dimensions were outliers in each case, as JSON.

    Where an ability is measured, the first seed's arms (and those that need none) also answer a few prompts.
    """
    root, settings = store.project_root(), shard["settings"]
    shared = open_bench(root, store.dump_json(settings))
    model = shared.fresh_model()
    if shard["seed"] is None:
        arms = {REFERENCE: _measure(shared, settings, True, True)}
        for scale in shard["scales"]:
            with outliers.int8_activations(model, {}, scale):
                arms[f"{scale}-{EVERYTHING}"] = _measure(shared, settings, True, True)
        return {"seed": None, "arms": arms, "found": []}
    calibration = calibration_windows(shared.tokenizer, settings, shard["seed"], root)
    text.refuse_overlap(calibration, shared.windows)
    largest = outliers.largest_activations(model, calibration)
    arms, found = {}, []
    for case in shard["cases"]:
        parsed = parse_case(case)
        ranked = outliers.ranked_outliers(largest, parsed.threshold, outliers.SITE_SETS[parsed.sites])
        found.append(_found(case, parsed, ranked, largest))
        for arm, moved in outliers.moved_sets(ranked, shard["seed"]).items():
            key = case in shard["key_cases"]
            if key or arm != "top1":
                speaks = key and shard["seed"] == settings["calibration_seeds"][0]
                with outliers.int8_activations(model, outliers.kept_dims(ranked, moved), parsed.scale):
                    arms[f"{parsed.name}-{arm}"] = _measure(shared, settings, key, speaks)
    return {"seed": shard["seed"], "arms": arms, "found": found}


def _found(case: str, parsed: Case, ranked: list[tuple[str, int]], largest: dict[str, Any]) -> dict[str, Any]:
    """How many outliers, and the first three: site, dimension, layers, largest activation."""
    top = [
        {"site": key, "dim": d, "layers": int((largest[key][:, d] >= parsed.threshold).sum()),
         "largest": round(largest[key][:, d].max().item(), 2)}
        for key, d in ranked[: outliers.MOVED]
    ]  # fmt: skip
    return {"case": case, "outliers": len(ranked), "top": top}


def _measure(shared: Bench, settings: dict[str, Any], ability: bool, speaks: bool) -> dict[str, Any]:
    """Text scores, exact match of in-context learning where an ability is measured, and answers for the report."""
    model, found = shared.model, shared.text_scores(shared.model)
    if ability:
        found["icl_em"] = shared.icl_scores(model, settings["shots"])["exact"]
    if speaks:
        found["said"] = answer_greedily(model, shared.tokenizer, list(PROMPTS), settings["sample_tokens"])
    return found


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Per window and per item, for every arm and seed; arms are named `token-residual4-top3`."""
    evidence = Evidence("quantization", "quantization-outliers")
    count = settings["text_windows"]
    evidence.units("text", [f"window/{number}" for number in range(count)], asked=count)
    tasks = task_list(settings, store.project_root())
    asked = settings["icl_items"] * len(settings["tasks"])
    evidence.units("icl", [unit for task in tasks for unit in task.ids()], asked=asked)
    for name, units, higher, floor in (
        ("nll", "text", False, None), ("kl", "text", False, None), ("top1", "text", True, None),
        ("icl_em", "icl", True, 0.0),
    ):  # fmt: skip
        evidence.metric(name, units=units, higher_is_better=higher, floor=floor)
        for result in results:
            for arm, scores in result["arms"].items():
                if name in scores:
                    evidence.add(name, arm=arm, seed=result["seed"], values=scores[name])
    return {**evidence.as_dict(), "items": {task.name: task.hash for task in tasks}}
