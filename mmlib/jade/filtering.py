"""Rules that keep or drop generated questions, picture by picture, with a count per rule.

Released rules: sanity, agreement with the filter's answer, a quota for binary questions. Others are arms of the study:
existence, the best by a score, the truth. A rule maps the rows of one picture to those kept and never holds a corpus;
what needs the whole (thresholds, shares) comes from a pass before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mmlib.jade.language import ABSENT
from mmlib.jade.tokens import SPECIAL
from mmlib.jade.truth import RIGHT
from mmlib.metrics.vqa import normalise

Row = dict[str, Any]
Score = Callable[[str, Row], float]
BINARY = ("yes", "no")
BINARY_SHARE = 0.1  # of the other questions of a picture


@dataclass(frozen=True)
class Rule:
    """Name, and rows of a picture -> rows kept."""

    name: str
    keep: Callable[[str, list[Row]], list[Row]]


@dataclass
class Counts:
    """Rows that entered and left each rule."""

    entered: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def table(self) -> list[dict[str, Any]]:
        """One line per rule, in order of use."""
        return [{"rule": rule, "entered": n, "kept": self.kept[rule]} for rule, n in self.entered.items()]


def summed(parts: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The tables under a key of all parts, added up."""
    counts = Counts()
    for part in parts:
        for line in part[key]:
            counts.entered[line["rule"]] += line["entered"]
            counts.kept[line["rule"]] += line["kept"]
    return counts.table()


def stream(
    pictures: Iterable[tuple[str, list[Row]]], rules: list[Rule], counts: Counts
) -> Iterator[tuple[str, list[Row]]]:
    """(id, rows kept) of each picture; pictures that lost all rows still appear, with none."""
    for name, rows in pictures:
        for rule in rules:
            counts.entered[rule.name] += len(rows)
            rows = rule.keep(name, rows)
            counts.kept[rule.name] += len(rows)
        yield name, rows


def each(name: str, test: Callable[[str, Row], bool]) -> Rule:
    """A rule that looks at one row at a time."""
    return Rule(name, lambda picture, rows: [row for row in rows if test(picture, row)])


def _sane(picture: str, row: Row) -> bool:
    """Finished, not empty, no special token left, a probability, and the answer is not the question."""
    texts = (row["question"], row["answer"])
    left = any(word in SPECIAL for text in texts for word in text.split())
    return all(texts) and not left and row.get("ended", True) and row["prob"] > 0 and texts[0] != texts[1]


def sanity() -> Rule:
    """The released code's first filter."""
    return each("sanity", _sane)


def unique() -> Rule:
    """Every (question, answer) of a picture once: the first that was asked."""

    def keep(picture: str, rows: list[Row]) -> list[Row]:
        first = {(row["question"], row["answer"]): row for row in reversed(rows)}
        return [row for row in rows if first[row["question"], row["answer"]] is row]

    return Rule("unique", keep)


def agrees(generated: str, filtered: str) -> bool:
    """Equal after the normalisation of VQA v2; a filter that says `absent` agrees with nothing."""
    return filtered != ABSENT and normalise(generated) == normalise(filtered)


def consistency(model: str = "independent") -> Rule:
    """Keep where a filter's answer is the generator's."""
    return each("consistency", lambda picture, row: agrees(row["answer"], row["filter"][model][0]))


def denied(row: Row) -> bool:
    """Did the filter say no when it was asked whether the thing is there that a question or a caption is about?

    What names no thing is not asked, and not denied: "is there a dog ?" - "no" claims nothing to be there.
    """
    return row["exists"] == "no"


def existence() -> Rule:
    """Drop what a filter denies: the one meaning of the check, for questions and for captions."""
    return each("existence", lambda picture, row: not denied(row))


def oracle() -> Rule:
    """Keep what is right: the ceiling."""
    return each("oracle", lambda picture, row: row["verdict"] == RIGHT)


def best(name: str, score: Score, pictures: Iterable[tuple[str, list[Row]]], count: int) -> Rule:
    """Keep the `count` rows of the whole set that score highest: a pass before, which finds the threshold.

    Rows of equal score all stay, so that a score needs `tie`.
    """
    values = sorted((score(picture, row) for picture, rows in pictures for row in rows), reverse=True)
    least = values[count - 1] if count else float("inf")
    return each(name, lambda picture, row: score(picture, row) >= least)


def lot(picture: str, row: Row, seed: int) -> float:
    """A number in 0 … 1 that depends on seed, picture, box, question and answer alone."""
    text = f"{seed}/{picture}/{row.get('box')}/{row['question']}/{row['answer']}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def tie(score: Score, seed: int) -> Score:
    """The score; where two are equal the lot decides."""
    return lambda picture, row: score(picture, row) + 1e-9 * lot(picture, row, seed)


def balance(pictures: Iterable[tuple[str, list[Row]]]) -> dict[str, float]:
    """Share of yes and of no to keep so that both are as many: the pass before `binary_quota`."""
    counted = Counter(row["answer"] for _, rows in pictures for row in rows if row["answer"] in BINARY)
    least = min((counted[answer] for answer in BINARY), default=0)
    return {answer: least / counted[answer] if counted[answer] else 0.0 for answer in BINARY}


def binary_quota(shares: dict[str, float], seed: int, most: float = BINARY_SHARE) -> Rule:
    """Balanced yes and no, then at most floor(`most` x others) of them per picture, drawn by lot.

    A picture without another question keeps none, as in the released code.
    """

    def keep(picture: str, rows: list[Row]) -> list[Row]:
        others = [row for row in rows if row["answer"] not in BINARY]
        # Two lots: one draw for both would prefer the answer whose share is smaller.
        drawn = [row for row in rows if row["answer"] in BINARY and lot(picture, row, seed) < shares[row["answer"]]]
        drawn = sorted(drawn, key=lambda row: lot(picture, row, seed + 1))[: int(most * len(others))]
        chosen = {id(row) for row in (*others, *drawn)}
        return [row for row in rows if id(row) in chosen]

    return Rule("binary quota", keep)
