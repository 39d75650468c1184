"""Boxes: parsing them from text, intersection over union, and accuracy at a threshold. Existence: POPE's scores."""

from __future__ import annotations

import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]
BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([r"(-?\d+(?:\.\d+)?)"] * 4) + r"\s*\]")


def parse_box(text: str) -> Box | None:
    """The first `[x0,y0,x1,y1]` in a text; None if there is none or it is empty."""
    if not (found := BOX.search(text)):
        return None
    x0, y0, x1, y1 = map(float, found.groups())
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def box_accuracy(answer: str, truth: str, threshold: float = 0.5) -> float:
    """1 if the box in the answer overlaps the true one by more than `threshold` (RefCOCO's convention: 0.5).

    Raises:
        ValueError: the truth holds no box.
    """
    if (right := parse_box(truth)) is None:
        raise ValueError(f"`{truth}` holds no box")
    found = parse_box(answer)
    return float(found is not None and iou(found, right) > threshold)


def yes_or_no(answer: str) -> str:
    """POPE's reading of an answer: `no` if its first sentence contains no or not, else `yes`."""
    words = re.findall(r"[a-z']+", answer.lower().split(".")[0])
    return "no" if {"no", "not"} & set(words) else "yes"


def existence(answers: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
    """POPE (Li et al. 2023): accuracy, precision, recall and F1 of `yes`, and the share of `yes` answers.

    Precision, recall and F1 are 0 where they are not defined (nobody said yes).
    """
    said = [yes_or_no(answer) == "yes" for answer in answers]
    true = [truth == "yes" for truth in truths]
    hits = sum(s and t for s, t in zip(said, true, strict=True))
    precision, recall = (hits / part if part else 0.0 for part in (sum(said), sum(true)))
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    right = sum(s == t for s, t in zip(said, true, strict=True))
    return {"accuracy": right / len(true), "precision": precision, "recall": recall, "f1": f1,
            "yes": sum(said) / len(said)}  # fmt: skip
