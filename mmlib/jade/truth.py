"""What the world says about a generated question, answer or caption: the paper could not know, here it is exact."""

from __future__ import annotations

import re

from mmlib.jade.language import KINDS, PHRASES, known, understand
from mmlib.world.scenes import Placed, Scene

RIGHT, WRONG, PRESUPPOSITION, GARBLED = "right", "wrong answer", "false presupposition", "garbled"
VERDICTS = (RIGHT, WRONG, PRESUPPOSITION, GARBLED)
OVERLAP = 0.5  # least intersection over union at which a box shows a thing


def judge(scene: Scene, question: str, answer: str) -> str:
    """`right`, `wrong answer`, `false presupposition` (what is asked about is not there) or `garbled`.

    Where several things fit ("where is the dog" with two dogs) the answer for any of them is right.
    """
    understood = understand(question)
    if understood is None:
        return GARBLED
    kind, fields = understood
    if not KINDS[kind].holds(scene, fields):
        return PRESUPPOSITION
    return RIGHT if answer in KINDS[kind].answers(scene, fields) else WRONG


def right_answers(scene: Scene, question: str) -> set[str]:
    """Every right answer; empty for garbled questions and false presuppositions."""
    understood = understand(question)
    if understood is None or not KINDS[understood[0]].holds(scene, understood[1]):
        return set()
    return KINDS[understood[0]].answers(scene, understood[1])


def intersection_over_union(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Of two boxes x0 y0 x1 y1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (area - width * height)


def thing_in(scene: Scene, box: tuple[float, ...]) -> Placed | None:
    """The thing that a box shows best, or None where it shows none."""
    best = max(scene.objects, key=lambda o: intersection_over_union(o.box, box))
    return best if intersection_over_union(best.box, box) >= OVERLAP else None


def caption_right(scene: Scene, box: tuple[float, ...], caption: str) -> bool:
    """Is all that a region's caption says true of the thing in the box?"""
    thing = thing_in(scene, box)
    for pattern in PHRASES:
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>\\S+)", pattern), caption)
        if thing and found and all(value in known()[name] for name, value in found.groupdict().items()):
            return all(getattr(thing, name) == value for name, value in found.groupdict().items())
    return False
