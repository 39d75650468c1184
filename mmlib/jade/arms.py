"""What every way of filtering keeps, and the evidence: ratios over questions, written as one value per picture.

A share such as right / kept is no mean over pictures. Its linearisation is v_i = P + (n / K)(r_i - P k_i) for picture
i with r_i right among k_i kept, P = Σr / K, K = Σk over n pictures. The mean of v is P exactly, and resampling pictures
gives the delta-method error of a ratio, with the dependence between questions of one picture in it.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from mmlib.evidence import Evidence
from mmlib.jade import filtering
from mmlib.jade.truth import GARBLED, PRESUPPOSITION, RIGHT, WRONG

Row = dict[str, Any]
Pictures = list[list[Row]]
STUDY, STAGE = "jade", "jade-data"
AGREES = {
    "consistency": "independent",
    "same pictures": "same pictures",
    "own weights": "own weights",
    "may refuse": "may refuse",
    "existence": "independent",
}  # arm -> whose answer must be the generator's
# Agreement with the independent filter, cut to as many as another arm keeps: those that this filter is surest of.
CUT = {"consistency, as few as existence": "existence", "consistency, as few as may refuse": "may refuse"}
SCORED = ("probability", "random")  # keep as many as `consistency`
ARMS = ("none", *AGREES, *CUT, *SCORED, "oracle")


def keep(arm: str, pictures: Pictures, seed: int) -> Pictures:
    """The rows of each picture that an arm keeps, by the rules of `filtering`."""
    named = [(str(number), rows) for number, rows in enumerate(pictures)]
    return [rows for _, rows in filtering.stream(named, _rules(arm, pictures, seed), filtering.Counts())]


def _rules(arm: str, pictures: Pictures, seed: int) -> list[filtering.Rule]:
    if arm == "none":
        return []
    if arm == "oracle":
        return [filtering.oracle()]
    if arm in AGREES:
        return [filtering.consistency(AGREES[arm]), *([filtering.existence()] if arm == "existence" else [])]
    if arm in CUT:
        sure = filtering.tie(lambda picture, row: row["filter"]["independent"][1], seed)
        return [
            filtering.consistency(),
            _best(arm, sure, keep("consistency", pictures, seed), CUT[arm], pictures, seed),
        ]
    score = {"probability": filtering.tie(lambda picture, row: row["prob"], seed),
             "random": lambda picture, row: filtering.lot(picture, row, seed)}[arm]  # fmt: skip
    return [_best(arm, score, pictures, "consistency", pictures, seed)]


def _best(
    name: str, score: filtering.Score, among: Pictures, like: str, pictures: Pictures, seed: int
) -> filtering.Rule:
    """The best by a score, as many as the arm `like` keeps."""
    size = sum(map(len, keep(like, pictures, seed)))
    return filtering.best(name, score, [(str(number), rows) for number, rows in enumerate(among)], size)


def ratio(numerators: list[float], denominators: list[float]) -> list[float]:
    """One value per picture whose mean is Σ numerators / Σ denominators.

    Raises:
        ValueError: the denominators sum to 0.
    """
    whole = sum(denominators)
    if not whole:
        raise ValueError("a share of nothing")
    share = sum(numerators) / whole
    scale = len(denominators) / whole
    return [share + scale * (a - share * b) for a, b in zip(numerators, denominators, strict=True)]


def counted(pictures: Pictures, test: Callable[[Row], bool]) -> list[float]:
    """Rows of each picture that pass."""
    return [float(sum(map(test, rows))) for rows in pictures]


def standardised(kept: Pictures, raw: Pictures) -> list[float]:
    """Per picture: precision of what was kept, at the raw mix of types.

    Σ over types of raw share x precision among the kept; types of which nothing was kept have none, and the rest is
    weighted anew.
    """
    kinds = sorted({row["type"] for rows in kept for row in rows})
    sizes = [sum(row["type"] == kind for rows in raw for row in rows) for kind in kinds]
    if not kinds:
        raise ValueError("a share of nothing")
    total = [0.0] * len(kept)
    for kind, size in zip(kinds, sizes, strict=True):
        part = [[row for row in rows if row["type"] == kind] for rows in kept]
        values = ratio(counted(part, _right), counted(part, lambda row: True))
        total = [a + size / sum(sizes) * b for a, b in zip(total, values, strict=True)]
    return total


def _right(row: Row) -> bool:
    return row["verdict"] == RIGHT


METRICS = {  # name -> (higher is better, (kept, raw) -> one value per picture)
    "standardised": (True, standardised),
    "precision": (True, lambda kept, raw: ratio(counted(kept, _right), counted(kept, lambda row: True))),
    "kept": (True, lambda kept, raw: ratio(counted(kept, lambda row: True), counted(raw, lambda row: True))),
    "right_kept": (True, lambda kept, raw: ratio(counted(kept, _right), counted(raw, _right))),
    "errors_kept": (False, lambda kept, raw: ratio(counted(kept, lambda r: not _right(r)),
                                                   counted(raw, lambda r: not _right(r)))),
    "wrong_answer": (False, lambda kept, raw: _share_of(kept, WRONG)),
    "false_presupposition": (False, lambda kept, raw: _share_of(kept, PRESUPPOSITION)),
    "garbled": (False, lambda kept, raw: _share_of(kept, GARBLED)),
}  # fmt: skip


def _share_of(kept: Pictures, verdict: str) -> list[float]:
    return ratio(counted(kept, lambda row: row["verdict"] == verdict), counted(kept, lambda row: True))


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Every metric of every arm on the shifted set; raw errors on both sets; captions with and without a check.

    An arm that kept nothing, or a metric that is a share of nothing, has no values.
    """
    evidence = Evidence(STUDY, STAGE)
    pictures = settings["pictures"]
    evidence.units("pictures", [f"picture/{number:05d}" for number in range(pictures)], asked=pictures)
    for name, (higher, _) in METRICS.items():
        evidence.metric(name, units="pictures", higher_is_better=higher, floor=None)
    evidence.metric("wrong", units="pictures", higher_is_better=False, floor=None)
    evidence.metric("caption_right", units="pictures", higher_is_better=True, floor=None)
    evidence.units("exam", [f"exam/{number:05d}" for number in range(pictures)], asked=pictures)
    evidence.metric("exam", units="exam", higher_is_better=True, floor=None)
    evidence.metric("exam_behind", units="exam", higher_is_better=False, floor=None)
    for result in results:
        _add_seed(evidence, result)
    return evidence.as_dict()


def _add_seed(evidence: Evidence, result: dict[str, Any]) -> None:
    seed, raw = result["seed"], result["sets"]["web"]["rows"]
    for arm in ARMS:
        kept = keep(arm, raw, seed)
        for name, (_, measure) in METRICS.items():
            _add(evidence, name, arm, seed, measure, kept, raw)
    for name, part in result["sets"].items():
        _add(evidence, "wrong", name, seed, _wrong, part["rows"], part["rows"])
    captions = result["sets"]["web"]["captions"]
    undenied = [[row for row in rows if not filtering.denied(row)] for rows in captions]
    for arm, kept in (("none", captions), ("existence", undenied)):
        _add(evidence, "caption_right", arm, seed, _caption_right, kept, captions)
    _add_exam(evidence, result)


def _add_exam(evidence: Evidence, result: dict[str, Any]) -> None:
    """Right answers to true questions about fresh shifted pictures, and by how much a filter is behind the first."""
    shares = {arm: [fmean(right) for right in sets["web"]] for arm, sets in result["exam"].items()}
    for arm, values in shares.items():
        evidence.add("exam", arm=arm, seed=result["seed"], values=[round(value, 6) for value in values])
        behind = [round(a - b, 6) for a, b in zip(shares["independent"], values, strict=True)]
        evidence.add("exam_behind", arm=arm, seed=result["seed"], values=behind)


def _add(
    evidence: Evidence, metric: str, arm: str, seed: int, measure: Callable, kept: Pictures, raw: Pictures
) -> None:
    try:
        values = measure(kept, raw)
    except ValueError:  # nothing was kept, or nothing is wrong
        return
    evidence.add(metric, arm=arm, seed=seed, values=[round(value, 9) for value in values])


def _wrong(kept: Pictures, raw: Pictures) -> list[float]:
    return ratio(counted(kept, lambda row: not _right(row)), counted(kept, lambda row: True))


def _caption_right(kept: Pictures, raw: Pictures) -> list[float]:
    return ratio(counted(kept, lambda row: row["right"]), counted(kept, lambda row: True))
