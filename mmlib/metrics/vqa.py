"""VQA accuracy as the official evaluation computes it (Goyal et al. 2017; VQA v2's `vqaEval`), and exact answers.

With ten annotators an answer scores min(1, matches / 3), averaged over the ten leave-one-out sets of nine. Answers
are normalised only where the annotators differ, as in the official code: there is no need where all say the same.
"""

from __future__ import annotations

import re
from functools import cache
from statistics import fmean

ARTICLES = frozenset(("a", "an", "the"))
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
           "seven": "7", "eight": "8", "nine": "9", "ten": "10"}  # fmt: skip
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll let's ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't ow's'at shan't she'd've should've shouldn't
    shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
    they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
    y'all'd've you'd you'd've you'll you're you've
"""


def normalise(answer: str) -> str:
    """Lower case, no punctuation, numbers as digits, no articles, apostrophes restored (`dont` -> `don't`)."""
    words = _without_punctuation(re.sub(r"[\n\t]", " ", answer).strip()).lower().split()
    words = [NUMBERS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(_apostrophes().get(word, word) for word in words)


def _without_punctuation(text: str) -> str:
    """A sign next to a space, or in a text with a number such as 1,000, vanishes; elsewhere it becomes a space."""
    grouped, result = re.search(r"\d,\d", text) is not None, text
    for sign in PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        result = result.replace(sign, "" if beside_space or grouped else " ")
    return re.sub(r"(?<!\d)\.(?!\d)", "", result)


@cache
def _apostrophes() -> dict[str, str]:
    """Every spelling that lacks one or more apostrophes -> the right one, where the bare one is no other word."""
    table = {}
    for word in CONTRACTIONS.split():
        marks = [i for i, sign in enumerate(word) if sign == "'"]
        for left_out in range(1, 2 ** len(marks)):
            dropped = {mark for number, mark in enumerate(marks) if left_out >> number & 1}
            table["".join(sign for i, sign in enumerate(word) if i not in dropped).lower()] = word
    return table


def accuracy(answer: str, given: list[str]) -> float:
    """Score of one answer in 0 … 1 against the annotators' answers (public sets have ten).

    Raises:
        ValueError: no answers were given.
    """
    if not given:
        raise ValueError("VQA accuracy needs at least one given answer")
    if len(set(given)) > 1:
        answer, given = normalise(answer), [normalise(one) for one in given]
    if len(given) == 1:  # no annotators to leave out: an exact match
        return float(answer == given[0])
    others = (given[:i] + given[i + 1 :] for i in range(len(given)))
    return fmean(min(1.0, sum(one == answer for one in rest) / 3) for rest in others)


def exact(answer: str, truth: str) -> float:
    """1 if both are the same after normalisation."""
    return float(normalise(answer) == normalise(truth))
