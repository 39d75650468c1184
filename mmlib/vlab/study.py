"""What one shard of stage 1 computes: an arm from one seed.

All arms of a comparison get the same clips, steps, batches and questions. Rate and pace are searched among the same
pairs for the adapter that is claimed and for the baselines, by answers on validation clips, on a seed that is not
reported.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.vlab import language
from mmlib.vlab.base import Settings, as_text, drawn, features, open_base, read_weights, tokenizer

if TYPE_CHECKING:
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import Arm, Vlab


def arms(blocks: list[int]) -> dict[str, Arm]:
    """Stage-1 variants by name. `b0` and `b1` are provably blind to order; `b2` is the one to beat."""
    from mmlib.vlab.model import Arm

    where = tuple(blocks)
    adapted = {name: Arm(name, where) for name in ("mlp", "tconv", "st3d", "tattn", "aim")}
    return {
        "b0": Arm(pool=True, frame_embedding=False),
        "b1": Arm(frame_embedding=False),
        "b2": Arm(),
        **adapted,
        "b2-tuned": Arm(freeze="clip_small_lr"),
        "tconv-small-lr": Arm("tconv", where, freeze="clip_small_lr"),
        "tconv-unfrozen": Arm("tconv", where, freeze="none"),
        "tconv-before-mlp": Arm("tconv", where, position="mlp"),
        "tconv-both": Arm("tconv", where, position="both"),
    }


def score(result: dict[str, Any]) -> float:
    """Mean of the three families of questions."""
    from statistics import fmean

    return round(fmean(fmean(result["scores"][family]) for family in language.FAMILIES), 6)


def choose(results: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Arm -> `learning_rate` and `pace` with the best `score` on validation clips; the lower ones of equals."""
    best: dict[str, tuple[float, float, float]] = {}
    for result in results:
        found = (score(result), -result["learning_rate"], -result["pace"])
        best[result["arm"]] = max(best.get(result["arm"], (-1.0, 0.0, 0.0)), found)
    return {arm: {"learning_rate": -rate, "pace": -pace} for arm, (_, rate, pace) in best.items()}


def settings_for(arm: str, chosen: dict[str, dict[str, float]], blocks: list[int]) -> dict[str, float]:
    """What the search chose for an arm; for an ablation what it chose for the arm itself; for others of a kind theirs.

    Adapters that were not searched take `st3d`'s settings, arms without adapter those of `b2@match`.
    """
    kind = arm.partition("@")[0]
    alike = "b2@match" if arms(blocks)[kind].adapter == "none" else "st3d"
    return next(chosen[name] for name in (arm, kind, alike) if name in chosen)


def rates(settings: Settings, learning_rate: float) -> Settings:
    """AdamW's rate and Muon's, which is so many times as high: one grid for both."""
    return {"learning_rate": learning_rate, "muon_learning_rate": settings["muon_ratio"] * learning_rate}


def parse_arm(name: str, blocks: list[int], hidden: int) -> tuple[Arm, Settings]:
    """`tconv`, `tconv@T4` (frames) or `tconv@qa` (one loss alone) -> the arm and what it changes in the settings.

    `@match` exchanges the loss of a clip and its reversal: through the multimodal encoder, not through averages.

    Raises:
        UserError: unknown name.
    """
    from mmlib.vlab.model import RATIOS

    kind, _, option = name.partition("@")
    known = arms(blocks)
    if kind not in known or (option and option[0] != "T" and option not in RATIOS):
        raise UserError(
            f"unknown arm `{name}`", f"choose from: {', '.join(known)}, with @T1 … @T8 or @{'/@'.join(RATIOS)}"
        )
    changes: Settings = {}
    if option.startswith("T"):
        changes["frames"] = int(option[1:])
    elif option == "match":
        changes["ratios"] = {**RATIOS, "pair": 0.0, "match": RATIOS["pair"]}
    elif option:
        kept = ("vtc", "pair") if option == "vtc" else (option,)
        changes["ratios"] = {task: ratio if task in kept else 0.0 for task, ratio in RATIOS.items()}
    return dataclasses.replace(known[kind], hidden=hidden), changes


def adapt(shard: dict[str, Any]) -> dict[str, Any]:
    """Stage 1 of one arm from one seed, measured on `shard["split"]`."""
    import torch

    from mmlib.vlab import training
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import RATIOS, Vlab, adopt_reader

    torch.set_num_threads(1)
    base, settings, seed = shard["base"], shard["settings"], shard["seed"]
    arm, changes = parse_arm(shard["arm"], settings["blocks"], settings["hidden"])
    options = {"ratios": RATIOS, **settings, **changes, **rates(settings, shard["learning_rate"])}
    options["pace"] = shard["pace"]
    options["name"] = shard["name"]
    words = tokenizer(base["nouns"])
    model = Vlab(open_base(base), arm, words.pad_token_id, seed)
    reader = f"results/vlab/clip/reader-seed{base['clip_seed']}.safetensors"
    adopt_reader(model, read_weights(store.project_root() / reader))
    sequences, (pairs, _) = Sequences(words, settings["answer_share"]), drawn(base, "train")
    scratch = store.project_root() / ".scratch" / "vlab" / f"adapt-{store.digest(shard)}"
    seen = {"lower": features(base, "train", model.start)}
    curve = training.train(model, sequences, pairs, seen, options, seed, scratch)
    result = {"arm": shard["arm"], "seed": seed, "learning_rate": shard["learning_rate"], "pace": shard["pace"],
              "curve": curve, "parameters": sum(p.numel() for p in model.parameters())}  # fmt: skip
    result |= {"scores": measure_adapted(model, sequences, base, shard["split"], options.get("frames"))}
    if shard["keep"]:
        result["weights"] = {shard["arm"]: as_text(model.state_dict())}
    return result


def measure_adapted(
    model: Vlab, sequences: Sequences, base: Settings, split: str, frames: int | None
) -> dict[str, list[float]]:
    """All scores of a stage-1 model, also with shuffled test frames; on validation clips questions alone."""
    from mmlib.vlab import training
    from mmlib.vlab.measures import answered, measure

    pairs, _ = drawn(base, split)
    below = features(base, split, model.start)
    see = training.seer({"video": training.encode(model, below, frames=frames)})
    if split == "validation":
        return answered(model, sequences, pairs, see)
    shuffled = training.seer({"video": training.encode(model, below, "shuffled", frames)})
    return measure(model, sequences, pairs, see, shuffled)
