"""What LLaVA's language model learns in stage 1 beside captions: to look things up in the picture.

Captions alone hardly teach a language model of this size to find something by its name. So it first answers dense
look-ups (`find dog north color east red …`, eight a sequence, each answer right after what is asked), and then plain
questions in dialogues, where it has to carry over what is asked to where it answers. A published LLaVA's language
model has read a library before it sees a picture; ours knows no word, and what a question is it learns here: in
wordings of its own, which neither the instruction pool nor a benchmark uses, and only of what can be seen at a glance.
For the same reason the dense look-ups hold what such a model would have read: facts about the things, letters that
stand for words, and, of words alone, which one is odd and of which there are more. Of pictures nobody asks the last
two before the benchmarks do.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from mmlib.formats.llava import IMAGE_MARK, Turn
from mmlib.models.llava import IGNORED, encode_turns
from mmlib.world.language import DIGITS
from mmlib.world.nouns import CELLS, by_name, load_nouns, of_category
from mmlib.world.questions import ASKERS, LETTERS, box_text
from mmlib.world.scenes import Scene
from mmlib.world.vocabulary import SPLIT, USER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DENSE, PLAIN_TURNS = 8, 4  # look-ups a sequence, questions a dialogue
PLAIN = {
    "exist": ("see {a_noun} ?", "the picture : {a_noun} in it ?", "{a_noun} there ?", "has it {a_noun} ?"),
    "where": ("find the {noun} .", "where do you see the {noun} ?", "which place has the {noun} ?",
              "the {noun} can be found where ?"),
    "what": ("{where} : which thing ?", "which thing do you see in the {where} ?", "name what is in the {where} .",
             "the {where} : what is there ?"),
    "color": ("say the color of the {noun} .", "which color has the {noun} ?", "{noun} : what color ?",
              "color behind the {noun} ?"),
    "size": ("{noun} : which size ?", "say how large the {noun} is .", "has the {noun} a small or a large size ?"),
    "count": ("{noun} : say how many .", "how many of {noun} do you see ?", "it has how many {noun} things ?"),
    "background": ("say the ground .", "which background is it ?", "what ground do you see ?"),
    "sign": ("which word do you see ?", "say what you read .", "what can you read ?"),
    "sign_place": ("find the sign .", "which place has the sign ?", "where do you see the sign ?"),
    "exist_color": ("see {a_noun} on {colour} ?", "{a_noun} on {colour} there ?", "has it {a_noun} on {colour} ?"),
}  # fmt: skip


def dense_row(
    tokenizer: PreTrainedTokenizerBase, scene: Scene, draw: random.Random, image_tokens: int, simple: bool = False
) -> tuple[list[int], list[int]]:
    """Ids and labels of `<bos> user <image>… find dog north name east cat …`; the answers alone have labels.

    Args:
        simple: nothing but look-ups of one step. All at once, none of them was learned in 500 steps; these are in 300.
    """
    words, answers = [], []
    for _ in range(DENSE):
        families = (_find_or_name, _look_closer) if simple else (_find_or_name, _look_closer, _relate, _relate, _know)
        family = draw.choice(families)
        asked, answered = family(scene, draw)
        words += [*asked, *answered.split()]
        answers += [*(False for _ in asked), *(True for _ in answered.split())]
    ids = tokenizer.convert_tokens_to_ids([USER, *[IMAGE_MARK] * image_tokens, *words])
    kept = [False] * (1 + image_tokens) + answers
    return [tokenizer.bos_token_id, *ids], [IGNORED, *(i if k else IGNORED for i, k in zip(ids, kept, strict=True))]


def _find_or_name(scene: Scene, draw: random.Random) -> tuple[list[str], str]:
    """What is asked, and its answer in one word: the place of a thing (or `none`), or the name of what is at a place.

    One word: with name, color and size to say at once, names were at 60 % when these are at 99 %.
    """
    kind = draw.random()
    names = [o for o in scene.objects if scene.count(o.noun) == 1]
    if kind < 0.05 and scene.sign:
        return ["find", "sign"], scene.sign.where
    if kind < 0.15 and not scene.count(absent := draw.choice(load_nouns()).noun):
        return ["find", absent], "none"
    if kind < 0.55 and names:
        thing = draw.choice(names)
        return ["find", thing.noun], thing.where
    at = {o.cell: o.noun for o in scene.objects} | ({scene.sign.cell: "sign"} if scene.sign else {})
    # Most cells hold nothing.
    cell = draw.choice(scene.objects).cell if draw.random() < 0.7 else draw.randrange(len(CELLS))
    return ["name", CELLS[cell]], at.get(cell, "none")


def _look_closer(scene: Scene, draw: random.Random) -> tuple[list[str], str]:
    """Color or size, by place or by name; the word of a sign; the place of a thing of a color, or `none`."""
    kind, thing = draw.random(), draw.choice(scene.objects)
    if kind < 0.35 and scene.sign:
        return ["read", "sign"], scene.sign.word
    once = scene.count(thing.noun) == 1
    if kind < 0.5 and once:
        colour = draw.choice((thing.colour, draw.choice(scene.objects).colour))
        return ["find", colour, thing.noun], thing.where if colour == thing.colour else "none"
    word = thing.noun if once and kind < 0.75 else thing.where
    return draw.choice(((["color", word], thing.colour), (["size", word], thing.size)))


def _relate(scene: Scene, draw: random.Random) -> tuple[list[str], str]:
    """What stands right of a thing, which of two stands further left or higher; a number, a kind, a box."""
    kind, thing = draw.random(), draw.choice(scene.objects)
    once = [o for o in scene.objects if scene.count(o.noun) == 1]
    if kind < 0.25 and once:
        thing, at = draw.choice(once), {o.cell: o.noun for o in scene.objects}
        return ["right", thing.noun], at.get(thing.cell + 1, "none") if thing.column < 2 else "none"
    if kind < 0.5 and len(once) > 1:
        first, second = draw.sample(once, 2)
        line = draw.choice(("row", "column"))
        yes = getattr(first, line) < getattr(second, line)
        return ["above" if line == "row" else "left", first.noun, second.noun], "yes" if yes else "no"
    if kind < 0.7:
        return ["count", thing.noun], DIGITS[scene.count(thing.noun)]
    if kind < 0.9 or thing not in once:
        return ["kind", thing.where], by_name()[thing.noun].category
    return ["box", thing.noun], " ".join(re.findall(SPLIT, box_text(thing.box)))


def _know(scene: Scene, draw: random.Random) -> tuple[list[str], str]:
    """Without the picture: a fact about a noun, the letter before a word in a list, the odd word, the commoner one."""
    nouns, kind = [n.noun for n in load_nouns()], draw.random()
    noun = draw.choice(load_nouns())
    if kind < 0.4:
        return draw.choice(((["kind", noun.noun], noun.category), (["place", noun.noun], noun.place),
                            (["hold", noun.noun], noun.held)))  # fmt: skip
    if kind < 0.6:
        listed = dict(zip(LETTERS, draw.sample(nouns, len(LETTERS)), strict=True))
        letter, name = draw.choice(list(listed.items()))
        return [word for pair in listed.items() for word in (pair[0], ":", pair[1])] + ["letter", name], letter
    if kind < 0.8:
        others = [n.noun for n in load_nouns() if n.category != noun.category]
        odd = draw.choice(others)
        words = [*draw.sample(of_category(noun.category), draw.randint(2, 4)), odd]
        draw.shuffle(words)
        return [*words, "odd"], odd
    more, less = draw.sample(nouns, 2)
    fewer, yes = draw.randint(1, 2), draw.random() < 0.5
    words = [more] * draw.randint(fewer + 1, 4) + [less] * fewer
    draw.shuffle(words)
    return [*words, "more", *((more, less) if yes else (less, more))], "yes" if yes else "no"


def dialogue_row(
    tokenizer: PreTrainedTokenizerBase, scene: Scene, draw: random.Random, image_tokens: int
) -> tuple[list[int], list[int]]:
    """Ids and labels of a dialogue of plain questions, in LLaVA's own encoding."""
    turns: list[Turn] = []
    while len(turns) < 2 * PLAIN_TURNS:
        kind = draw.choice(tuple(PLAIN))
        if made := ASKERS[kind](scene, draw):
            fields, answered = made
            mark = "" if turns else f"{IMAGE_MARK}\n"
            turns += [Turn("human", mark + draw.choice(PLAIN[kind]).format(**fields)), Turn("gpt", answered)]
    return encode_turns(tokenizer, tuple(turns), image_tokens)
