"""What every way of filtering keeps, and the evidence: ratios over questions, written as one value per picture.

A share such as right / kept is no mean over pictures. Its linearisation is v_i = P + (n / K)(r_i - P k_i) for picture
i with r_i right among k_i kept, P = Σr / K, K = Σk over n pictures. The mean of v is P exactly, and resampling pictures
gives the delta-method error of a ratio, with the dependence between questions of one picture in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmlib.evidence import Evidence
from mmlib.jade import filtering
from mmlib.jade.truth import GARBLED, PRESUPPOSITION, RIGHT, WRONG

Row = dict[str, Any]
Pictures = list[list[Row]]
STUDY, STAGE = "jade", "jade-data"
FREE = ("consistency", "same pictures", "own weights", "may refuse", "existence")  # arms that choose how much they keep
ARMS = ("none", *FREE, "probability", "random", "oracle")
AGREES = {"consistency": "independent", "same pictures": "same pictures", "own weights": "own weights",
          "may refuse": "may refuse", "existence": "independent"}  # fmt: skip


def keep(arm: str, pictures: Pictures, seed: int) -> Pictures:
    """The rows of each picture that an arm keeps; `probability` and `random` keep as many as `consistency`."""
    if arm == "none":
        return pictures
    test = _test(arm, pictures, seed)
    return [[row for row in rows if test(number, row)] for number, rows in enumerate(pictures)]


def _test(arm: str, pictures: Pictures, seed: int) -> Callable[[int, Row], bool]:
    if arm == "oracle":
        return lambda number, row: row["verdict"] == RIGHT
    if arm in FREE:
        confirmed = arm == "existence"
        return lambda number, row: (
            filtering.agrees(row["answer"], row["filter"][AGREES[arm]][0]) and not (confirmed and row["exists"] == "no")
        )
    scored = {"probability": lambda number, row: row["prob"] + 1e-9 * _lot(number, row, seed),  # ties by lot
              "random": lambda number, row: _lot(number, row, seed)}[arm]  # fmt: skip
    size = sum(len(rows) for rows in keep("consistency", pictures, seed))
    values = [scored(number, row) for number, rows in enumerate(pictures) for row in rows]
    least = filtering.limit_for(values, size, largest=True) if size else float("inf")
    return lambda number, row: scored(number, row) >= least


def _lot(number: int, row: Row, seed: int) -> float:
    return filtering.lot(str(number), row, seed)


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
    """Per picture: precision of what was kept, at the raw mix of types (`precision.standardised`)."""
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
    confirmed = [[row for row in rows if row["exists"] == "yes"] for rows in captions]
    for arm, kept in (("none", captions), ("existence", confirmed)):
        _add(evidence, "caption_right", arm, seed, _caption_right, kept, captions)


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
