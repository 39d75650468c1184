"""Typed questions about scenes, with the one right answer, in wordings for training and wordings held out for tests.

An asker returns None where its question makes no sense for a scene (no sign, no thing that is named only once …).
Yes/no questions are balanced: the answer is drawn first, then a question that has it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmlib.errors import UserError
from mmlib.world.language import DIGITS, article, phrase
from mmlib.world.nouns import by_name, load_nouns
from mmlib.world.scenes import SIDE, Placed, Scene

LETTERS = ("a", "b", "c", "d")
TABLE = Path(__file__).with_name("wordings.yaml")


@cache
def wordings() -> dict[str, dict[str, list[str]]]:
    """Question kind -> `training` and `held_out` -> wordings."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(TABLE)


@dataclass(frozen=True)
class Question:
    """A question with its answer; `about` names what it depends on (for balanced and adversarial sampling)."""

    kind: str
    text: str
    answer: str
    about: str


def ask(kind: str, scene: Scene, draw: random.Random, held_out: bool = False) -> Question | None:
    """A question of that kind about the scene, or None if there is none.

    Raises:
        UserError: unknown kind, or a kind that has no wording for training.
    """
    if kind not in ASKERS:
        raise UserError(f"unknown question kind `{kind}`", f"choose from: {', '.join(sorted(ASKERS))}")
    choices = wordings()[kind]["held_out" if held_out else "training"]
    if not choices:
        raise UserError(f"question kind `{kind}` is for tests only", "pass held_out=True")
    made = ASKERS[kind](scene, draw)
    if made is None:
        return None
    fields, answer = made
    about = fields.get("noun") or fields.get("where") or fields.get("phrase") or answer
    return Question(kind, draw.choice(choices).format(**fields), answer, about)


Made = tuple[dict[str, str], str] | None


def box_text(box: tuple[int, int, int, int]) -> str:
    """`[0.01,0.01,0.32,0.32]`: corners as shares of the side, as in LLaVA-1.5's grounding records."""
    return "[" + ",".join(f"{value / SIDE:.2f}" for value in box) + "]"


def unique(scene: Scene) -> list[Placed]:
    """Things whose name occurs once."""
    return [o for o in scene.objects if scene.count(o.noun) == 1]


def _named(noun: str) -> dict[str, str]:
    return {"noun": noun, "a_noun": article(noun)}


def _yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


def _absent(scene: Scene, draw: random.Random) -> str:
    """A noun that is not there; in half of the draws one that often comes with those that are (adversarial)."""
    places = {by_name()[o.noun].place for o in scene.objects}
    names = [n.noun for n in load_nouns() if not scene.count(n.noun)]
    close = [name for name in names if by_name()[name].place in places]
    return draw.choice(close if close and draw.random() < 0.5 else names)


def _exist(scene: Scene, draw: random.Random) -> Made:
    yes = draw.random() < 0.5
    return _named(draw.choice(scene.objects).noun if yes else _absent(scene, draw)), _yes_no(yes)


def _count(scene: Scene, draw: random.Random) -> Made:
    # Over the numbers that occur, not over the things: otherwise nearly every answer is one.
    by_number = {scene.count(o.noun): o.noun for o in draw.sample(scene.objects, len(scene.objects))}
    number = draw.choice(sorted(by_number))
    if number == 1 and draw.random() < 0.4:
        return _named(_absent(scene, draw)), DIGITS[0]
    return _named(by_number[number]), DIGITS[number]


def _of_unique(field: Callable[[Placed], str]) -> Callable[[Scene, random.Random], Made]:
    def asker(scene: Scene, draw: random.Random) -> Made:
        if not (things := unique(scene)):
            return None
        thing = draw.choice(things)
        return _named(thing.noun), field(thing)

    return asker


def _at_cell(field: Callable[[str], str]) -> Callable[[Scene, random.Random], Made]:
    def asker(scene: Scene, draw: random.Random) -> Made:
        thing = draw.choice(scene.objects)
        return {"where": thing.where}, field(thing.noun)

    return asker


def _held(scene: Scene, draw: random.Random) -> Made:
    wanted = draw.choice(("yes", "no"))
    fitting = [o for o in scene.objects if by_name()[o.noun].held == wanted]
    return ({"where": draw.choice(fitting).where}, wanted) if fitting else None


def _ordered(coordinate: str) -> Callable[[Scene, random.Random], Made]:
    def asker(scene: Scene, draw: random.Random) -> Made:
        things = unique(scene)
        pairs = [(a, b) for a in things for b in things if getattr(a, coordinate) < getattr(b, coordinate)]
        if not pairs:
            return None
        yes = draw.random() < 0.5
        first, second = draw.choice(pairs)[:: 1 if yes else -1]
        return {"noun": first.noun, "other": second.noun}, _yes_no(yes)

    return asker


def _right_of(field: Callable[[Placed], str]) -> Callable[[Scene, random.Random], Made]:
    def asker(scene: Scene, draw: random.Random) -> Made:
        at = {o.cell: o for o in scene.objects}
        pairs = [(o, at[o.cell + 1]) for o in unique(scene) if o.column < 2 and o.cell + 1 in at]
        if not pairs:
            return None
        thing, neighbour = draw.choice(pairs)
        return {"noun": thing.noun}, field(neighbour)

    return asker


def _sign(scene: Scene, draw: random.Random) -> Made:
    return ({}, scene.sign.word) if scene.sign else None


def _sign_place(scene: Scene, draw: random.Random) -> Made:
    return ({}, scene.sign.where) if scene.sign else None


def _choice(scene: Scene, draw: random.Random) -> Made:
    thing = draw.choice(scene.objects)
    others = [n.noun for n in load_nouns() if n.noun != thing.noun]
    present = sorted({o.noun for o in scene.objects} - {thing.noun})
    wrong = draw.sample(present, min(1, len(present)))  # one that is in the picture, elsewhere
    wrong += draw.sample([n for n in others if n not in wrong], len(LETTERS) - 1 - len(wrong))
    options = [thing.noun, *wrong]
    draw.shuffle(options)
    listed = " ".join(f"{letter} : {option}" for letter, option in zip(LETTERS, options, strict=True))
    return {"where": thing.where, "options": listed}, LETTERS[options.index(thing.noun)]


def _different_phrases(scene: Scene) -> list[Placed]:
    phrases = [phrase(o) for o in scene.objects]
    return [o for o in scene.objects if phrases.count(phrase(o)) == 1]


def _refer(scene: Scene, draw: random.Random) -> Made:
    if not (things := _different_phrases(scene)):
        return None
    thing = draw.choice(things)
    return {"phrase": phrase(thing)}, box_text(thing.box)


def _region(scene: Scene, draw: random.Random) -> Made:
    thing = draw.choice(scene.objects)
    return {"box": box_text(thing.box), "where": thing.where}, phrase(thing)


def _compare(scene: Scene, draw: random.Random) -> Made:
    counts = {o.noun: scene.count(o.noun) for o in scene.objects}
    pairs = [(a, b) for a in counts for b in counts if counts[a] > counts[b]]
    if not pairs:
        return None
    yes = draw.random() < 0.5
    first, second = draw.choice(pairs)[:: 1 if yes else -1]
    return {"noun": first, "other": second}, _yes_no(yes)


def _odd(scene: Scene, draw: random.Random) -> Made:
    kinds = [by_name()[o.noun].category for o in scene.objects]
    lonely = [o for o, kind in zip(scene.objects, kinds, strict=True) if kinds.count(kind) == 1]
    if len(scene.objects) < 3 or len(lonely) != 1 or len(set(kinds)) != 2:
        return None
    return {}, lonely[0].noun


def _exist_color(scene: Scene, draw: random.Random) -> Made:
    """The noun is there in any case; only the pairing decides."""
    yes, thing = draw.random() < 0.5, draw.choice(scene.objects)
    worn = {o.colour for o in scene.objects if o.noun == thing.noun}
    others = sorted({o.colour for o in scene.objects} - worn)
    if not yes and not others:
        return None
    return {**_named(thing.noun), "colour": thing.colour if yes else draw.choice(others)}, _yes_no(yes)


ASKERS: dict[str, Callable[[Scene, random.Random], Made]] = {
    "exist": _exist,
    "count": _count,
    "color": _of_unique(lambda o: o.colour),
    "where": _of_unique(lambda o: o.where),
    "what": _at_cell(lambda noun: noun),
    "size": _of_unique(lambda o: o.size),
    "background": lambda scene, draw: ({}, scene.background),
    "sign": _sign,
    "kind": _at_cell(lambda noun: by_name()[noun].category),
    "place": _at_cell(lambda noun: by_name()[noun].place),
    "held": _held,
    "side": _ordered("column"),
    "above": _ordered("row"),
    "beside": _right_of(lambda o: o.noun),
    "beside_color": _right_of(lambda o: o.colour),
    "choice": _choice,
    "refer": _refer,
    "region": _region,
    "compare": _compare,
    "odd": _odd,
    "exist_color": _exist_color,
    "sign_place": _sign_place,
}
