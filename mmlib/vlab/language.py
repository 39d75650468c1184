"""What is said about clips: captions that name the motion, and STATIC, MOTION and JOINT questions.

STATIC can be answered from one frame, MOTION only from the order of frames; JOINT wants a name and a motion in one
answer ("dog left"), or the name of what comes first. Within a question, a clip and its reversed partner have opposite
answers, so whoever ignores order is right in one of the two. Tests also ask in wordings that training never used: a
new combination of an opening and a wording, both of which training did use.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from mmlib.world.clips import ANSWERS, Clip
from mmlib.world.nouns import BACKGROUNDS, load_nouns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# `<eos>` must not have id 2: transformers' CLIP would then pool the token with the largest id instead.
PAD, BOS, MASK, EOS = "<pad>", "<bos>", "<mask>", "<eos>"
SPECIAL = (PAD, BOS, MASK, EOS)
FAMILIES = ("static", "motion", "joint")
DOES = {
    "across": ("moves {answer}", "goes {answer}"),
    "along": ("moves {answer}", "goes {answer}"),
    "turn": ("turns {answer}", "spins {answer}"),
    "size": ("{answer} slowly", "slowly {answer}"),
    "order": ("comes {answer} the {second}", "is seen {answer} the {second}"),
    "distance": ("slowly {answer}", "{answer} slowly"),
}
CAPTIONS = {
    False: (
        "a {things} {does} on {ground}",
        "on {ground} a {things} {does}",
        "the {things} {does} , all on {ground}",
        "{ground} : the {things} {does}",
        "a {things} on {ground} {does}",
    ),
    True: ("the {things} on {ground} {does}", "on {ground} : a {things} {does}"),
}
STILLS = (
    "a {things} on {ground}",
    "on {ground} a {things}",
    "the {things} , all on {ground}",
    "{ground} : the {things}",
)
PROMPTS = {"caption": "describe the video", "masked": "fill the masks of the video"}


@dataclass(frozen=True)
class Template:
    """A kind of question: its family, the motions it can be asked about, two wordings, and the answer."""

    family: str
    kinds: tuple[str, ...]
    wordings: tuple[str, str]
    answer: str


ONE_THING = ("across", "along", "turn", "size")
# A question is an opening and a wording. Training meets each of both, but not all six combinations.
OPENINGS = ("", "say", "in the video :")
WORDINGS = {False: ((0, 0), (0, 1), (1, 0), (2, 1)), True: ((1, 1), (2, 0))}
QUESTIONS = {
    "what": Template("static", ONE_THING, ("what is it ?", "which thing is it ?"), "{first}"),
    "ground": Template("static", tuple(ANSWERS), ("what is it on ?", "on which ground is all ?"), "{ground}"),
    "way": Template("motion", ("across", "along"), ("which way does it move ?", "where does it go ?"), "{answer}"),
    "turn": Template("motion", ("turn",), ("which way does it turn ?", "how does it spin ?"), "{answer}"),
    "size": Template("motion", ("size",), ("what does the size do ?", "how does it change ?"), "{answer}"),
    "distance": Template("motion", ("distance",), ("what do they do ?", "how do the things move ?"), "{answer}"),
    "does": Template("joint", ONE_THING, ("what does what ?", "which thing does which way ?"), "{first} {answer}"),
    "first": Template("joint", ("order",), ("what comes first ?", "which thing is first ?"), "{early}"),
    "last": Template("joint", ("order",), ("what comes last ?", "which thing is last ?"), "{late}"),
}


def _fields(clip: Clip) -> dict[str, str]:
    early, late = (clip.first, clip.second) if clip.phase < clip.other else (clip.second, clip.first)
    things = f"{clip.first} and {clip.second}" if clip.kind == "distance" else clip.first
    return {"first": clip.first, "second": clip.second, "answer": clip.answer, "ground": clip.background,
            "things": things, "early": early, "late": late}  # fmt: skip


def captions(clip: Clip, held_out: bool = False) -> list[str]:
    """Every caption of a clip in the wordings of training, or in those of tests."""
    fields = _fields(clip)
    does = DOES[clip.kind][0].format(**fields), DOES[clip.kind][1].format(**fields)
    return [pattern.format(does=does[number % 2], **fields) for number, pattern in enumerate(CAPTIONS[held_out])]


def still_captions(clip: Clip, frame: int) -> list[str]:
    """Captions of one frame: what is seen in it and on what, nothing about motion or place."""
    names = [clip.first, clip.second] if clip.kind == "distance" else [clip.first]
    if clip.kind == "order":
        names = [noun for noun, when in ((clip.first, clip.phase), (clip.second, clip.other)) if when == frame]
    if not names:
        return [clip.background]
    return [pattern.format(things=" and ".join(names), ground=clip.background) for pattern in STILLS]


def templates(clip: Clip, family: str) -> list[str]:
    """Names of the questions of a family that can be asked about a clip; order has no MOTION question without names."""
    return [name for name, template in QUESTIONS.items() if template.family == family and clip.kind in template.kinds]


def ask(clip: Clip, name: str, number: int, held_out: bool = False) -> tuple[str, str]:
    """(question, answer); `number` counts the combinations of training, or those that are held out, in a circle."""
    combinations = WORDINGS[held_out]
    opening, wording = combinations[number % len(combinations)]
    template = QUESTIONS[name]
    return f"{OPENINGS[opening]} {template.wordings[wording]}".strip(), template.answer.format(**_fields(clip))


def chance(family: str) -> float:
    """The most that a model blind to order can reach, on average over a clip and its partner."""
    return 1.0 if family == "static" else 0.5


@cache
def words(nouns: int) -> tuple[str, ...]:
    """Special tokens, then every word of captions, prompts, questions and answers, sorted."""
    texts = [*PROMPTS.values(), *OPENINGS, *BACKGROUNDS, *(noun.noun for noun in load_nouns()[:nouns])]
    texts += [answer for pair in ANSWERS.values() for answer in pair]
    texts += [text for patterns in (*DOES.values(), *CAPTIONS.values(), STILLS) for text in patterns]
    texts += [text for template in QUESTIONS.values() for text in template.wordings]
    plain = {word for text in texts for word in text.split() if not word.startswith("{")}
    return (*SPECIAL, *sorted(plain | {"and"}))


def still_words(nouns: int) -> list[str]:
    """Words of captions of still pictures: what a CLIP of single frames has met."""
    plain = {word for text in STILLS for word in text.split() if not word.startswith("{")}
    return sorted(plain | {*BACKGROUNDS, "and", *(noun.noun for noun in load_nouns()[:nouns])})


def new_words(nouns: int) -> list[str]:
    """Words of clips' captions that no still picture's caption has: those of motion."""
    texts = [text for patterns in (*DOES.values(), *CAPTIONS.values()) for text in patterns]
    texts += [answer for pair in ANSWERS.values() for answer in pair]
    return sorted({word for text in texts for word in text.split() if word[0] != "{"} - {*still_words(nouns)})


def build_tokenizer(nouns: int) -> PreTrainedTokenizerBase:
    """One token a word; an unknown word becomes padding. Pads on the right.

    Args:
        nouns: the first so many nouns of the world are known.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words(nouns))}, unk_token=PAD))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, bos_token=BOS, eos_token=EOS, mask_token=MASK, padding_side="right"
    )


def draw_questions(clip: Clip, draw: random.Random, count: int) -> list[tuple[str, str, str]]:
    """`count` training questions (template, question, answer), families in turn from a drawn one, wording drawn."""
    asked, families = [], [family for family in FAMILIES if templates(clip, family)]
    first = draw.randrange(len(families))  # else families beyond the first `count` would never be asked
    for number in range(count):
        name = draw.choice(templates(clip, families[(first + number) % len(families)]))
        asked.append((name, *ask(clip, name, draw.randrange(len(WORDINGS[False])))))
    return asked
