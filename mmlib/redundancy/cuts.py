"""Cuts of the instruction pool: one task group keeps a share of its records, all the others keep theirs.

A group is a task label of LLaVA-1.5's mixture (`mmlib.world.pool`), but for the two with boxes, which share a benchmark.
Groups were fixed before the first run, each with the benchmarks whose question kinds its own records ask. A cut has two
arms. Plain: with equal steps the group loses records and its share of the batches. Exposure-matched: the kept records
are repeated to the group's old count, so that batches stay as mixed as they were and only variety is lost. The first
shows what a task loses when it is shown less, the second whether its records were redundant.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mmlib.errors import UserError


@dataclass(frozen=True)
class Group:
    """A task group: labels of its records, its own benchmarks, what its records ask."""

    name: str
    labels: tuple[str, ...]
    own: tuple[str, ...]
    about: str


# Not here, having no benchmark of their own: the dialogues of LLaVA-Instruct, captions, chats without a picture.
GROUPS = (
    Group("vqav2", ("vqav2",), ("existence", "count", "color", "where", "what"), "many short questions a picture"),
    Group("gqa", ("gqa",), ("spatial", "neighbour"), "where things stand to one another"),
    Group("okvqa", ("okvqa",), ("knowledge",), "kind, place and use of a thing: not to be seen"),
    Group("aokvqa", ("aokvqa",), ("choice",), "letter of the right name"),
    Group("grounding", ("refcoco", "vg"), ("referring",), "boxes of phrases, phrases of boxes"),
    Group("ocrvqa", ("ocrvqa",), ("ocr",), "the word on the sign"),
)
TRAINED = tuple(name for group in GROUPS for name in group.own)  # all that the pool trains, a test says
FULL, SEVERAL, MATCHED = "full", "several", "-matched"


@dataclass(frozen=True)
class Cut:
    """`percent` of the records of each of `groups` is kept; `matched`: and repeated to the old count."""

    groups: tuple[str, ...]
    percent: int
    matched: bool = False

    @property
    def arm(self) -> str:
        """`full`, `okvqa-25`, `several-25-matched` …"""
        if not self.groups:
            return FULL
        name = self.groups[0] if len(self.groups) == 1 else SEVERAL
        return f"{name}-{self.percent}{MATCHED if self.matched else ''}"


def arm_of(run: str) -> str:
    """`okvqa-25/seed0` -> `okvqa-25`."""
    return run.partition("/")[0]


def group(name: str) -> Group:
    """The group of that name."""
    if found := next((g for g in GROUPS if g.name == name), None):
        return found
    raise UserError(f"unknown task group `{name}`", f"choose from: {', '.join(g.name for g in GROUPS)}")


def all_cuts(settings: dict[str, Any]) -> list[Cut]:
    """The full mixture, every group at every level in its arms, and several groups at once, repeated."""
    several = tuple(settings["several"])
    if len(several) < 2:
        raise UserError(f"`several` names {len(several)} task groups", "name at least 2")
    made = [Cut((), 100)]
    for one in settings["groups"]:
        made += [Cut((group(one).name,), level) for level in settings["plain_levels"]]
        made += [Cut((one,), level, matched=True) for level in settings["matched_levels"]]
    return [*made, Cut(several, settings["several_level"], matched=True)]


def remaining(cut: Cut, rows: list[int], labels: list[str], seed: int) -> list[int]:
    """Rows of the pool that a run trains on, in order; one that is repeated stands several times.

    Args:
        rows: of the full mixture; labels: of every record of the pool.
    """
    of = {label: name for name in cut.groups for label in group(name).labels}
    members: dict[str, list[int]] = defaultdict(list)
    kept = []
    for row in rows:
        (members[of[labels[row]]] if labels[row] in of else kept).append(row)
    for name in cut.groups:
        kept += part(members[name], cut, name, seed)
    return sorted(kept)


def part(rows: list[int], cut: Cut, name: str, seed: int) -> list[int]:
    """A uniform draw from one group's rows. Of one seed, a smaller draw is inside a larger one, and the same draw
    stands in both arms and in `several`: arms then differ by the cut alone, not by the luck of the draw.

    Raises:
        UserError: a group without records, a level that is no percentage, or nothing left that could be repeated.
    """
    if not rows:
        raise UserError(f"task group {name} has no record in this part of the pool", "use a larger part of the pool")
    if not 0 <= cut.percent <= 100 or (cut.matched and not cut.percent):
        culprit = f"cut {cut.arm}: {cut.percent} % of the records kept{', and repeated' if cut.matched else ''}"
        raise UserError(culprit, "keep 0 to 100 %, and above 0 % where the kept ones are repeated")
    drawn = random.Random(f"cut/{seed}/{name}").sample(rows, len(rows))
    count = max(round(cut.percent / 100 * len(rows)), 1 if cut.percent else 0)
    return [drawn[i % count] for i in range(len(rows))] if cut.matched else drawn[:count]
