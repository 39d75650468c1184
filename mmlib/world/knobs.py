"""Faults that can be put into a pool on purpose: exact duplicates and wrong answers, as controls for selection."""

from __future__ import annotations

import random
from dataclasses import replace

from mmlib.errors import UserError
from mmlib.formats.llava import Record, Turn
from mmlib.world.pool import kind_of


def with_duplicates(records: list[Record], share: float, seed: int) -> list[Record]:
    """The records and exact copies of a drawn `share` of them, appended; copies have ids `copy-…`."""
    _check_share(share)
    chosen = random.Random(f"duplicates/{seed}").sample(records, round(share * len(records)))
    return [*records, *(replace(record, id=f"copy-{record.id}") for record in chosen)]


def with_wrong_answers(records: list[Record], share: float, seed: int) -> tuple[list[Record], set[str]]:
    """A drawn `share` of the records gets the answers of another one of its kind; also the ids of those.

    A record keeps its answers, and does not count, where all others of its kind answer the same.
    """
    _check_share(share)
    draw, by_kind = random.Random(f"wrong/{seed}"), {}
    for record in records:
        by_kind.setdefault(kind_of(record), []).append(record)
    chosen = {record.id for record in draw.sample(records, round(share * len(records)))}
    spoilt = {record.id: _spoil(record, by_kind[kind_of(record)], draw) for record in records if record.id in chosen}
    wrong = {name for name, record in spoilt.items() if record is not None}
    return [spoilt.get(record.id) or record for record in records], wrong


def _spoil(record: Record, donors: list[Record], draw: random.Random) -> Record | None:
    answers = [turn.text for turn in record.turns[1::2]]
    for donor in draw.sample(donors, len(donors)):
        others = [turn.text for turn in donor.turns[1::2]]
        if len(others) >= len(answers) and all(a != b for a, b in zip(answers, others, strict=False)):
            said = [Turn(t.speaker, others[i // 2]) if i % 2 else t for i, t in enumerate(record.turns)]
            return replace(record, turns=tuple(said))
    return None


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UserError(f"a share of {share} of the pool", "choose between 0 and 1")
