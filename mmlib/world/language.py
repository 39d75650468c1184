"""Sentences about scenes: phrases, captions, dialogue answers, and alt-text as careless as the web's.

Every kind has several wordings; some are held out and appear in tests only (`held_out=True`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from mmlib.errors import UserError
from mmlib.world.nouns import CELLS, by_name, load_nouns
from mmlib.world.scenes import Placed, Scene

DIGITS = ("zero", "one", "two", "three", "four", "five", "six")
# Wordings by use: {things} is a list of phrases, {ground} the background.
CAPTIONS = {
    False: (
        "{things} .",
        "there is {things} .",
        "a picture of {things} .",
        "on {ground} : {things} .",
        "{things} , all on {ground} .",
    ),
    True: ("what can be seen : {things} .", "i see {things} and {ground} behind all things ."),
}
THING = {
    # The place first: with the place last (a share of 83 % of things named, against 94 %) a model has to know which
    # thing comes next before it has said where it looks.
    False: ("in the {where} a {size} {noun} on {colour}", "{where} : a {size} {noun} on {colour}"),
    True: ("{a_noun} , {size} , on {colour} , {where}",),
}
ALT_FILLERS = ("click to enlarge", "free download", "stock photo", "best price", "new collection", "image of the day")


@dataclass(frozen=True)
class AltText:
    """Alt-text and what is wrong with it: `exact`, `wrong` (names a thing that is not there) or `off-topic`."""

    text: str
    noise: str


def article(word: str) -> str:
    """`a cat`, `an owl`."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def phrase(thing: Placed) -> str:
    """`large dog on red`: what a region shows, without its place."""
    return f"{thing.size} {thing.noun} on {thing.colour}"


def enumerate_words(items: list[str]) -> str:
    """`x`, `x and y`, `x , y and z`."""
    return items[0] if len(items) == 1 else f"{' , '.join(items[:-1])} and {items[-1]}"


def caption(scene: Scene, draw: random.Random, held_out: bool = False) -> str:
    """Everything in the scene with size, plate and place, as one reads it (row by row), in a drawn wording.

    In a drawn order a model would have to guess what comes next, and greedy decoding then repeats and leaves out.
    """
    pattern = draw.choice(THING[held_out])
    things = [
        pattern.format(size=o.size, noun=o.noun, a_noun=article(o.noun), colour=o.colour, where=o.where)
        for o in scene.objects
    ]
    if scene.sign:
        things.append(f"a sign in the {scene.sign.where} that says {scene.sign.word}")
    return draw.choice(CAPTIONS[held_out]).format(things=enumerate_words(things), ground=scene.background)


def short_caption(scene: Scene, draw: random.Random, held_out: bool = False) -> str:
    """One sentence with the names only, and the word of the sign."""
    names = list(dict.fromkeys(o.noun for o in scene.objects))
    text = enumerate_words([article(name) for name in names])
    if scene.sign:
        link = "near a board reading" if held_out else "with a sign that says"
        text += f" {link} {scene.sign.word}"
    return f"{text} ." if not held_out else f"here you have {text} ."


def tags(scene: Scene, draw: random.Random) -> str:
    """Keywords as people tag pictures: names alone (half of the draws), names and places, or everything.

    Names alone matter: with colours and places in every text, a contrastive model can tell pictures apart without
    ever learning a name.
    """
    level = draw.random()
    pattern = "{noun}" if level < 0.5 else "{noun} {where}" if level < 0.7 else "{size} {noun} {colour} {where}"
    things = [
        pattern.format(size=o.size, noun=o.noun, colour=o.colour, where=o.where)
        for o in draw.sample(scene.objects, len(scene.objects))
    ]
    return " ".join([*things, f"sign {scene.sign.word} {scene.sign.where}"] if scene.sign else things)


def detail(scene: Scene, draw: random.Random) -> str:
    """A description in sentences: the ground, the number of things, each thing, the sign."""
    count = DIGITS[len(scene.objects)]
    noun = "thing" if len(scene.objects) == 1 else "things"
    sentences = [f"the background is {scene.background} .", f"there are {count} {noun} ."]
    sentences += [f"in the {o.where} is {article(o.size)} {o.noun} on {o.colour} ." for o in scene.objects]
    if scene.sign:
        sentences.append(f"a sign in the {scene.sign.where} says {scene.sign.word} .")
    return " ".join(sentences)


def alt_text(scene: Scene, draw: random.Random, noise: float = 0.25) -> AltText:
    """One short line such as a web page has: names one thing; a share `noise` is wrong or off-topic (half each)."""
    if not 0 <= noise <= 1:
        raise UserError(f"noise of alt-text is {noise}", "choose a share between 0 and 1")
    kind = draw.random()
    if kind < noise / 2:
        return AltText(draw.choice(ALT_FILLERS), "off-topic")
    shown = draw.choice(scene.objects)
    if kind < noise:
        absent = [n.noun for n in load_nouns() if not scene.count(n.noun)]
        return AltText(f"{shown.size} {draw.choice(absent)}", "wrong")
    return AltText(f"{shown.colour} {shown.noun}" if draw.random() < 0.5 else shown.noun, "exact")


@cache
def vocabulary() -> frozenset[str]:
    """Every word that names something in the world."""
    facts = [word for n in load_nouns() for word in (n.noun, n.category, n.place)]
    return frozenset([*facts, *CELLS, *by_name(), *DIGITS])
