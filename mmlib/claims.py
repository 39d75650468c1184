"""Claim cards: what a paper claims and by which criterion we judge it, read from claims/<study>.yaml.

A card is fixed before the first run. Whatever decides its verdict is hashed (`fingerprint`), and the last line of
the card's history must carry that hash: a criterion cannot be edited without a dated reason beside it.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmlib import config, store
from mmlib.errors import UserError

# Deciding keys. `scale` is one: it gives the margin its meaning. `not_attempted` is one: it silences a verdict.
DECIDING = ("evidence", "stage", "treatment", "control", "scale", "higher_is_better", "criterion", "requires",
            "seeds", "at_scale", "not_attempted")  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One side of a contrast: a metric of the evidence file and the arm that it was measured on."""

    metric: str
    arm: str


@dataclass(frozen=True)
class Published:
    """The paper's own effect (same sign and unit as ours) and the table cells it comes from."""

    effect: float
    label: str


@dataclass(frozen=True)
class Criterion:
    """`equivalence` within ±margin, or a `difference` in a direction by more than the margin."""

    kind: Literal["equivalence", "difference"]
    margin: float
    direction: Literal["positive", "negative"] | None = None


@dataclass(frozen=True)
class Requires:
    """What the mean of an arm must be for the comparison to mean anything, in raw units of the metric."""

    metric: str
    arm: str
    at_least: float | None = None
    at_most: float | None = None

    def met_by(self, mean: float) -> bool:
        """Whether a mean lies within the bounds."""
        return (self.at_least is None or mean >= self.at_least) and (self.at_most is None or mean <= self.at_most)

    def __str__(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        limits = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        return f"`{self.metric}` of `{self.arm}` {limits}"


@dataclass(frozen=True)
class Change:
    """One line of a card's history."""

    date: datetime.date
    change: str
    fingerprint: str


@dataclass(frozen=True)
class Card:
    """One claim: effect = scale x mean(treatment - control), judged by `criterion`."""

    study: str
    id: str
    version: int
    subject: str  # which model (or data) the row is about
    statement: str
    place: str
    evidence: str
    stage: str
    treatment: Arm
    control: Arm
    scale: float
    higher_is_better: bool
    effect_unit: str
    published: Published | None
    criterion: Criterion
    requires: Requires | None
    unit: str
    seeds: int
    at_scale: Literal["reduced", "paper"]
    not_attempted: str | None
    history: list[Change]


@dataclass(frozen=True)
class Paper:
    """What is reproduced."""

    title: str
    citation: str
    url: str


@dataclass(frozen=True)
class Study:
    """The cards of one file, in its order."""

    study: str
    paper: Paper
    claims: list[Card]


def load_all(root: Path) -> list[Study]:
    """Every study of claims/, in order of name."""
    return [load(path) for path in sorted((root / "claims").glob("*.yaml"))]


def load(path: Path) -> Study:
    """Read and validate one file of cards.

    Raises:
        UserError: naming file, claim and key, for an unknown or missing key, a wrong type, an id used twice, a
            criterion that cannot be judged, or a criterion that was edited without a line of history.
    """
    source, raw = f"claims/{path.name}", config.read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("claims"), list):
        raise UserError(f"{source}: key `claims` must be a list of cards", "write at least one card")
    cards = [_card(item, path.stem, source) for item in raw["claims"]]
    ids = [card.id for card in cards]
    for twice in [name for name in ids if ids.count(name) > 1]:
        raise UserError(f"{source}: claim {twice}: key `id` is used twice", "give each claim its own id")
    study = _build(Study, {**raw, "claims": []}, source, "")
    if study.study != path.stem:
        raise UserError(f"{source}: key `study` is `{study.study}`", f"a file bears its study's name: `{path.stem}`")
    return dataclasses.replace(study, claims=cards)


def fingerprint(card: Card) -> str:
    """16 hex digits over everything that decides the verdict; wording, place, subject and published value are free."""
    facts = {key: dataclasses.asdict(card)[key] for key in DECIDING}
    return store.digest(facts)[:16]


def _card(raw: Any, study: str, source: str) -> Card:
    name = raw.get("id", "?") if isinstance(raw, dict) else "?"
    where = f"{source}: claim {name}"
    if not isinstance(raw, dict):
        raise UserError(f"{where} must be a section", "indent its keys below a dash")
    card = _build(Card, {**raw, "study": study}, where, "")
    for key, sound, remedy in _rules(card):
        if not sound:
            raise UserError(f"{where}: key `{key}` is not valid", remedy)
    if card.history[-1].fingerprint != fingerprint(card):
        remedy = f"raise `version` and add a line of history with the reason and `fingerprint: {fingerprint(card)}`"
        raise UserError(f"{where}: key `history` does not cover the criterion as it now stands", remedy)
    return card


def _rules(card: Card) -> list[tuple[str, bool, str]]:
    """(key, whether it is sound, remedy): what types alone cannot say."""
    rule, needs = card.criterion, card.requires
    dates = [change.date for change in card.history]
    directed = (rule.kind == "difference") == (rule.direction is not None)
    bounded = needs is None or (needs.at_least, needs.at_most) != (None, None)
    path = re.fullmatch(r"results/[\w-]+(/[\w.-]+)*\.json", card.evidence) and "/.." not in card.evidence
    return [
        ("id", bool(re.fullmatch(r"[\w.-]+", card.id)), "use letters, digits, dots and dashes"),
        ("evidence", bool(path), "name a JSON file under results/"),
        ("control", card.treatment != card.control, "contrast two different things"),
        # A negative scale would flip the direction without the criterion showing it.
        ("scale", card.scale > 0, "give a positive factor"),
        ("criterion.margin", rule.margin > 0, "give the smallest effect that matters, above 0"),
        ("criterion.direction", directed, "`positive` or `negative` for a difference, none for an equivalence"),
        ("requires", bounded, "give at_least, at_most or both"),
        # Two broken arms are always equivalent.
        ("requires", rule.kind == "difference" or needs is not None, "an equivalence must require a working arm"),
        ("seeds", card.seeds >= 1, "ask for at least 1"),
        ("version", card.version == len(dates) > 0, "it must equal the number of lines of `history`"),
        ("history", dates == sorted(dates), "put its lines in order of date"),
    ]


def _build(cls: type, raw: Any, where: str, prefix: str) -> Any:
    if not isinstance(raw, dict):
        raise UserError(f"{where}: key `{prefix.rstrip('.')}` must be a section", "write it as `{key: value}`")
    hints = get_type_hints(cls)
    needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    for key in raw:
        if key not in hints:
            raise UserError(f"{where}: unknown key `{prefix}{key}`", "remove or correct it (see mmlib/claims.py)")
    for key in hints:
        if key in needed and key not in raw:
            raise UserError(f"{where}: missing key `{prefix}{key}`", "add it (see mmlib/claims.py)")
    return cls(**{key: _typed(hints[key], value, where, f"{prefix}{key}") for key, value in raw.items()})


def _typed(hint: Any, value: Any, where: str, name: str) -> Any:
    if types.NoneType in get_args(hint):  # `X | None`
        return None if value is None else _typed(get_args(hint)[0], value, where, name)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, f"{name}.")
    if get_origin(hint) is list and isinstance(value, list):
        return [_typed(get_args(hint)[0], item, where, f"{name}[{i}]") for i, item in enumerate(value)]
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in (str, int, bool, datetime.date) and type(value) is hint and value != "":
        return value
    expected = " or ".join(map(str, get_args(hint))) if get_origin(hint) is Literal else getattr(hint, "__name__", hint)
    raise UserError(f"{where}: key `{name}` must be {expected}, got {type(value).__name__} {value!r}", "correct it")
