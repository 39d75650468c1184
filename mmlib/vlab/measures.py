"""What is measured on a checkpoint, and on which units: three tasks, questions forwards, reversed and shuffled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.evidence import Evidence
from mmlib.vlab import language, tasks
from mmlib.vlab.data import Pairs

if TYPE_CHECKING:
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import Vlab

PARTS = {"static": "what", "motion": "distance"}  # by family, a template or a motion
DESCRIBED = 60  # clips and partners whose captions are generated and scored


def measure(model: Vlab, sequences: Sequences, pairs: Pairs, see: Any, shuffled: Any = None) -> dict[str, list[float]]:
    """Three tasks on one checkpoint: metric -> a value per unit (`units`)."""
    found = {**answered(model, sequences, pairs, see), **_more_of_motion(model, sequences, pairs, see, shuffled)}
    items = described(pairs)
    found |= tasks.caption_scores(tasks.describe(model, sequences, see, items), pairs, items)
    return {**found, **tasks.recalls(model, sequences, see, pairs)}


def answered(model: Vlab, sequences: Sequences, pairs: Pairs, see: Any) -> dict[str, list[float]]:
    """The families of questions and their `PARTS`, and MOTION as if the reversed clip had been asked about."""
    found: dict[str, list[float]] = {}
    for family in language.FAMILIES:
        asked = tasks.questions(pairs, family)
        said = tasks.answers(model, sequences, see, asked)
        found[family] = tasks.right(said, asked)
        found |= _parts(family, asked, found[family], pairs)
        if family == "motion":
            found["motion_reversed"] = tasks.right_for_partner(said, asked)
    return found


def shares(scores: dict[str, list[float]], pairs: Pairs) -> dict[str, float]:
    """Share of right answers by family and template, or by family and motion: `static/what`, `motion/size`, …"""
    from collections import defaultdict
    from statistics import fmean

    found: dict[str, list[float]] = defaultdict(list)
    for family in language.FAMILIES:
        for row, value in zip(tasks.questions(pairs, family), scores[family], strict=True):
            found[f"{family}/{row[1] if family == 'static' else pairs[row[0]].kind}"].append(value)
    return {name: round(fmean(values), 6) for name, values in sorted(found.items())}


def _parts(family: str, asked: list[tuple[int, str, str, str]], right: list[float], pairs: Pairs) -> dict[str, list]:
    """Questions that are read on their own: `what` (the thing's name), and `distance`, late fusion's easy case.

    Who knows which frame is the first tells *distance* from that frame alone.
    """
    named = PARTS.get(family)
    if not named:
        return {}
    return {named: [value for row, value in zip(asked, right, strict=True) if named in (row[1], pairs[row[0]].kind)]}


def _more_of_motion(model: Vlab, sequences: Sequences, pairs: Pairs, see: Any, shuffled: Any) -> dict[str, list[float]]:
    """Frames shuffled, and questions in wordings that training never used."""
    asked, reworded = tasks.questions(pairs, "motion"), tasks.questions(pairs, "motion", held_out=True)
    found = {"motion_reworded": tasks.right(tasks.answers(model, sequences, see, reworded), reworded)}
    if shuffled:
        found["motion_shuffled"] = tasks.right(tasks.answers(model, sequences, shuffled, asked), asked)
    return found


def described(pairs: Pairs) -> list[int]:
    """Items whose captions are generated: the first clips with their partners."""
    return list(range(min(DESCRIBED, len(pairs))))


def units(pairs: Pairs) -> dict[str, list[str]]:
    """Resampling units: `motion/number of the item`, by what is measured on them."""

    def name(item: int) -> str:
        return f"{pairs[item].kind}/{item}"

    found = {
        f"{family} question": [name(row[0]) for row in tasks.questions(pairs, family)] for family in language.FAMILIES
    }
    for family, part in PARTS.items():
        asked = tasks.questions(pairs, family)
        found[f"{part} question"] = [name(row[0]) for row in asked if part in (row[1], pairs[row[0]].kind)]
    found["any question"] = [f"{family}-{unit}" for family in language.FAMILIES for unit in found[f"{family} question"]]
    found["caption"] = [name(item) for item in described(pairs)]
    # One stratum: a small gallery has motions with a single clip, and those could not be resampled.
    found["query"] = [f"query/{item}" for items in tasks.queries(pairs) for item in items]
    return found


METRICS = {
    "motion_shuffled": "motion question", "cider": "caption", "caption_motion": "caption", "reversal_r1": "query",
    "static_r1": "query",
}  # fmt: skip
METRICS |= {"mixed": "any question", "motion_reversed": "motion question", "motion_reworded": "motion question"}
METRICS |= {part: f"{part} question" for part in PARTS.values()}
METRICS |= {family: f"{family} question" for family in language.FAMILIES}


BLIND = "order-blind ceiling"  # an arm without a model: one half of every pair of a clip and its reversal


def as_evidence(stage: str, results: list[dict[str, Any]], pairs: Pairs) -> dict[str, Any]:
    """Every metric per unit, for every arm and seed that measured it; `mixed`: all questions of the three families."""
    evidence, named = Evidence("vlab", stage), units(pairs)
    for kind, ids in named.items():
        evidence.units(kind, ids, asked=len(ids))
    for result in results:
        result["scores"]["mixed"] = [value for family in language.FAMILIES for value in result["scores"][family]]
    for metric, kind in METRICS.items():
        measured = [result for result in results if metric in result["scores"]]
        if measured:
            evidence.metric(metric, units=kind, higher_is_better=True, floor=None if metric == "cider" else 0.0)
        for result in measured:
            values = [round(value, 6) for value in result["scores"][metric]]
            evidence.add(metric, arm=result["arm"], seed=result["seed"], values=values)
    for metric in ("motion", "joint", "reversal_r1"):
        evidence.add(metric, arm=BLIND, seed=None, values=[0.5] * len(named[METRICS[metric]]))
    return evidence.as_dict()
