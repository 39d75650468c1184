"""What people say about the pictures: region phrases, typed questions of the annotated corpus, other wordings later.

A question belongs to a thing, as Visual Genome maps questions to regions. Downstream tasks ask the same facts in
wordings that no annotated picture has: otherwise pre-training on generated questions were fine-tuning in disguise.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from mmlib.world.language import DIGITS, article, enumerate_words
from mmlib.world.nouns import CELLS, COLOURS, SIZES, load_nouns
from mmlib.world.scenes import Placed, Scene

Fields = dict[str, str]
NOUNS = 32  # the first so many of the world's; the pilot's number
PHRASES = ("{size} {noun} on {colour}", "{size} {noun}", "{noun} on {colour}")
TYPE_WORDS = ("what", "how", "where", "who", "why", "when")
TYPES = ("what", "how", "where", "other", "yes", "no")  # those that this world's questions have
ABSENT = "absent"  # answer of a filter that may refuse a question
COCO = (
    "{things} on a {ground} floor",
    "a {ground} floor with {things}",
    "somebody put {things} on {ground}",
    "{things} lying around on {ground}",
    "{things} and {ground} behind",
)


@dataclass(frozen=True)
class Kind:
    """A kind of question: its wording in the annotated corpus, other wordings, what it takes for granted, the answers.

    `holds` tells whether the picture has what the question presupposes, `answers` gives every right answer then,
    `about` names the property of the thing in the region that is asked for (None: of the whole picture).
    """

    wording: str
    elsewhere: tuple[str, ...]
    holds: Callable[[Scene, Fields], bool]
    answers: Callable[[Scene, Fields], set[str]]
    about: str | None = None


def _with(scene: Scene, fields: Fields) -> list[Placed]:
    """Things that have all of the named properties."""
    return [o for o in scene.objects if all(getattr(o, name) == value for name, value in fields.items())]


def _some(scene: Scene, fields: Fields) -> bool:
    return bool(_with(scene, fields))


def _named(scene: Scene, fields: Fields) -> bool:
    return scene.count(fields["noun"]) > 0


def _each(name: str) -> Callable[[Scene, Fields], set[str]]:
    return lambda scene, fields: {getattr(o, name) for o in _with(scene, fields)}


def _yes_if(test: Callable[[Scene, Fields], bool]) -> Callable[[Scene, Fields], set[str]]:
    return lambda scene, fields: {"yes" if test(scene, fields) else "no"}


def _always(scene: Scene, fields: Fields) -> bool:
    return True


KINDS = {
    "thing": Kind("what is in the {where} ?", ("name the thing you see {where}", "{where} : which thing ?"),
                  _some, _each("noun"), "noun"),
    "color": Kind("what color is behind the {noun} ?", ("tell the color around the {noun}", "{noun} : which color ?"),
                  _some, _each("colour"), "colour"),
    # To ask how many there are takes for granted that there are some: nobody asks an annotated picture for none.
    "count": Kind("how many {noun} are there ?", ("give the number of {noun} here", "{noun} : which number ?"),
                  _named, lambda scene, fields: {DIGITS[scene.count(fields["noun"])]}),
    "size": Kind("how big is the {noun} ?", ("tell the size of the {noun}", "{noun} : which size ?"),
                 _some, _each("size"), "size"),
    "place": Kind("where is the {noun} ?", ("tell the place of the {noun}", "{noun} : which place ?"),
                  _some, _each("where"), "where"),
    "on": Kind("which thing is on {colour} ?", ("name the thing you see on {colour}", "on {colour} : which thing ?"),
               _some, _each("noun"), "noun"),
    "exist": Kind("is there a {noun} ?", ("do you see any {noun} here", "{noun} : yes or no ?"),
                  _always, _yes_if(_some)),
    "match": Kind("is the {noun} on {colour} ?",
                  ("do you see the {noun} on {colour}", "{noun} on {colour} : yes or no ?"),
                  _named, _yes_if(_some)),
}  # fmt: skip
BY_TYPE = {"what": ("thing", "color"), "how": ("count", "size"), "where": ("place",), "other": ("on",),
           "yes": ("exist", "match"), "no": ("exist", "match")}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A question with an answer, the type under which it is requested, the kind that made it, and with which fields."""

    kind: str
    type: str
    question: str
    answer: str
    fields: Fields = field(default_factory=dict)


def phrase(thing: Placed, draw: random.Random) -> str:
    """One of three ways to name a thing; two leave something out, as annotators do."""
    return draw.choice(PHRASES).format(size=thing.size, noun=thing.noun, colour=thing.colour)


def question_type(question: str, answer: str) -> str:
    """The first word if it is one of six, else the answer if that is yes or no, else `other` (released code)."""
    first = question.split()[0] if question.split() else ""
    return first if first in TYPE_WORDS else answer if answer in ("yes", "no") else "other"


def ask(scene: Scene, thing: Placed, kind: str, draw: random.Random, yes: bool = True, elsewhere: bool = False) -> Said:
    """A question about a thing, with the answer that is right of this thing (another of its name may differ).

    Args:
        kind: key of `KINDS`; yes: which answer a yes/no question shall have (other kinds ignore it).
        elsewhere: in a wording of the downstream tasks.
    """
    fields = {name: getattr(thing, name) for name in _gaps(KINDS[kind].wording)}
    if kind in ("exist", "match") and not yes:
        fields = _untrue(scene, thing, kind, draw)
    wording = draw.choice(KINDS[kind].elsewhere) if elsewhere else KINDS[kind].wording
    text = wording.format(**fields)
    about = KINDS[kind].about
    answer = getattr(thing, about) if about else min(KINDS[kind].answers(scene, fields))
    return Said(kind, question_type(KINDS[kind].wording, answer), text, answer, fields)


def _untrue(scene: Scene, thing: Placed, kind: str, draw: random.Random) -> Fields:
    """Fields that make the answer no: a thing that is absent, or a color that the thing does not stand on."""
    if kind == "exist":
        return {"noun": draw.choice([noun for noun in drawn_nouns() if not scene.count(noun)])}
    worn = {o.colour for o in scene.objects if o.noun == thing.noun}
    seen = sorted({o.colour for o in scene.objects} - worn)
    others = sorted(set(COLOURS) - worn)
    return {"noun": thing.noun, "colour": draw.choice(seen if seen and draw.random() < 0.5 else others)}


@cache
def drawn_nouns() -> tuple[str, ...]:
    """The nouns that things of this study have."""
    return tuple(noun.noun for noun in load_nouns()[:NOUNS])


def ask_type(scene: Scene, thing: Placed, kind: str, draw: random.Random, elsewhere: bool = False) -> Said:
    """A question of a type (what, how, where, other, yes, no) about a thing."""
    return ask(scene, thing, draw.choice(BY_TYPE[kind]), draw, yes=kind != "no", elsewhere=elsewhere)


def _gaps(wording: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", wording)


@cache
def patterns() -> dict[str, re.Pattern[str]]:
    """Kind -> a pattern that reads the fields out of a question of the annotated corpus."""
    return {
        kind: re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\S+)", re.escape(k.wording))) for kind, k in KINDS.items()
    }


def understand(question: str) -> tuple[str, Fields] | None:
    """Kind and fields of a question of the annotated corpus; None where it is none of them or names nothing known."""
    for kind, pattern in patterns().items():
        if found := pattern.fullmatch(question):
            fields = found.groupdict()
            return (kind, fields) if all(value in known()[name] for name, value in fields.items()) else None
    return None


@cache
def known() -> dict[str, frozenset[str]]:
    """Values of every property."""
    nouns = frozenset(noun.noun for noun in load_nouns())
    return {"noun": nouns, "colour": frozenset(COLOURS), "size": frozenset(SIZES), "where": frozenset(CELLS)}


def coco_captions(scene: Scene) -> list[str]:
    """Five captions of the whole picture in wordings of their own."""
    things = enumerate_words([f"{article(o.size)} {o.noun}" for o in scene.objects])
    return [pattern.format(things=things, ground=scene.background) for pattern in COCO]


def annotators(answer: str, among: tuple[str, ...], draw: random.Random, noise: float = 0.1) -> list[str]:
    """Ten answers as VQA v2 has them: each differs with probability `noise`."""
    return [draw.choice(among) if draw.random() < noise else answer for _ in range(10)]
