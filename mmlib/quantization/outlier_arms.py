"""The arms of the outlier study and their measurement: scale x (sites, threshold) x dimensions rounded as well."""

from __future__ import annotations

from typing import Any

from mmlib import store, text
from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.quantization import outliers
from mmlib.quantization.bench import REFERENCE, Bench, calibration_windows, open_bench

NO_TASKS = {"tasks": [], "icl_items": 0, "shots": 0, "choices": 1}  # measured on text only


def parse_case(case: str) -> tuple[tuple[str, ...], float]:
    """`residual/6` -> (sites of that set, 6.0): where outliers are counted, and from which size on."""
    name, _, threshold = case.partition("/")
    if name not in outliers.SITE_SETS or not threshold.replace(".", "", 1).isdigit():
        known = ", ".join(f"{key}/6" for key in outliers.SITE_SETS)
        raise UserError(f"unknown outlier case `{case}`", f"write sites and threshold, for example {known}")
    return outliers.SITE_SETS[name], float(threshold)


def shards(scales: list[str], cases: list[str], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard per scale, case and calibration seed; everything in INT8 and the reference need no calibration."""
    made = [
        {"name": f"{scale}/{case}/seed{seed}", "scale": scale, "case": case, "seed": seed, "settings": settings}
        for scale in scales
        for case in cases
        for seed in settings["calibration_seeds"]
    ]
    for case in cases:
        parse_case(case)
    bare = {"case": None, "seed": None, "settings": settings}
    made += [{"name": f"{scale}/everything", "scale": scale, **bare} for scale in scales]
    return [*made, {"name": REFERENCE, "scale": None, **bare}]


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """One shard -> text scores of its arms, and which dimensions were outliers, as JSON."""
    root, settings = store.project_root(), shard["settings"]
    shared = open_bench(root, store.dump_json({**settings, **NO_TASKS}))
    shared.fresh_model()
    if shard["scale"] is None:
        return {"arms": {REFERENCE: shared.text_scores(shared.model)}, "seed": None}
    if shard["case"] is None:
        return {"arms": {f"{shard['scale']}-everything": _scores(shared, {}, shard["scale"])}, "seed": None}
    sites, threshold = parse_case(shard["case"])
    calibration = calibration_windows(shared.tokenizer, settings, shard["seed"], root)
    text.refuse_overlap(calibration, shared.windows)
    largest = outliers.largest_activations(shared.model, calibration)
    ranked = outliers.ranked_outliers(largest, threshold, sites)
    arms = {}
    for arm, moved in outliers.moved_sets(ranked, shard["seed"]).items():
        name = f"{shard['scale']}-{shard['case'].replace('/', '')}-{arm}"
        arms[name] = _scores(shared, outliers.kept_dims(ranked, moved), shard["scale"])
    top = [
        {"site": key, "dim": d, "layers": int((largest[key][:, d] >= threshold).sum()),
         "largest": round(largest[key][:, d].max().item(), 2)}
        for key, d in ranked[:3]
    ]  # fmt: skip
    return {"case": shard["case"], "seed": shard["seed"], "outliers": len(ranked), "top": top, "arms": arms}


def _scores(shared: Bench, kept: outliers.Dims, scale: str) -> dict[str, list[float]]:
    with outliers.int8_activations(shared.model, kept, scale):
        return shared.text_scores(shared.model)


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Per window, for every arm and seed; arms are named `token-residual6-top3`."""
    evidence = Evidence("quantization", "quantization-outliers")
    count = settings["text_windows"]
    evidence.units("text", [f"window/{number}" for number in range(count)], asked=count)
    for name, higher in (("nll", False), ("kl", False), ("top1", True)):
        evidence.metric(name, units="text", higher_is_better=higher, floor=None)
        for result in results:
            for arm, scores in result["arms"].items():
                evidence.add(name, arm=arm, seed=result["seed"], values=scores[name])
    return evidence.as_dict()
