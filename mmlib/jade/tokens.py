"""Words, special tokens and prompts of generator and filter, as the released code has them.

A coordinate has a token per pixel of the picture: as many as its resolution, not 224 by decree.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from mmlib.jade import language
from mmlib.world.language import ALT_FILLERS, DIGITS
from mmlib.world.nouns import BACKGROUNDS, CELLS, COLOURS, SIZES, load_nouns
from mmlib.world.scenes import SIDE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
FIELD = "[unused0]"  # between fields of a prompt
ANSWER = "[unused1]"  # between question and answer: "the question is finished"
HIDDEN = "[unused2]"  # stands for the type while the answer is made: a binary type would tell it
SPECIAL = (PAD, CLS, SEP, MASK, FIELD, ANSWER, HIDDEN)
CAPTION_TASK, PAIR_TASK, VQA_TASK = "generate region caption", "generate question answer pair", "answer the question"


@cache
def words(side: int = SIDE) -> tuple[str, ...]:
    """Special tokens, coordinates, then every word of the study, sorted."""
    texts = [CAPTION_TASK, PAIR_TASK, VQA_TASK, language.ABSENT, *language.TYPES, *ALT_FILLERS, *language.PHRASES]
    texts += [text for kind in language.KINDS.values() for text in (kind.wording, *kind.elsewhere)]
    texts += [*language.COCO, "a an and , a picture of", *CELLS, *COLOURS, *SIZES, *BACKGROUNDS, *DIGITS]
    texts += [noun.noun for noun in load_nouns()]
    plain = {word for text in texts for word in text.split() if not word.startswith("{")}
    return (*SPECIAL, *(f"[loc{value}]" for value in range(side)), *sorted(plain))


def first_word(side: int = SIDE) -> int:
    """Id of the first plain word: random replacements are drawn from here on."""
    return len(SPECIAL) + side


def build_tokenizer(side: int = SIDE) -> PreTrainedTokenizerBase:
    """One token a word; an unknown word becomes padding. Pads on the right."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words(side))}, unk_token=PAD))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, cls_token=CLS, sep_token=SEP, mask_token=MASK, padding_side="right"
    )


class Words:
    """Text <-> ids without the library's overhead per call; unknown words are padding."""

    def __init__(self, side: int = SIDE) -> None:
        self.side, self.table = side, words(side)
        self.number = {word: n for n, word in enumerate(self.table)}
        self.pad, self.cls, self.sep, self.mask = (self.number[word] for word in (PAD, CLS, SEP, MASK))
        self.field, self.answer, self.hidden = (self.number[word] for word in (FIELD, ANSWER, HIDDEN))

    def __len__(self) -> int:
        return len(self.table)

    def ids(self, text: str) -> list[int]:
        """Ids of the words."""
        return [self.number.get(word, self.pad) for word in text.split()]

    def text(self, ids: list[int]) -> str:
        """Words of ids."""
        return " ".join(self.table[n] for n in ids)

    def place(self, box: tuple[int, ...], width: int | None = None, height: int | None = None) -> list[int]:
        """Four coordinate tokens: min(round(x * side / width), side - 1), and so for y."""
        scales = (self.side / (width or self.side), self.side / (height or self.side))
        values = (min(max(round(v * scales[i % 2]), 0), self.side - 1) for i, v in enumerate(box))
        return [self.number[f"[loc{value}]"] for value in values]

    def caption_prompt(self, place: list[int]) -> list[int]:
        """`[CLS] generate region caption [unused0] x0 y0 x1 y1 [SEP]`; place [] where location tokens are off."""
        return [self.cls, *self.ids(CAPTION_TASK), self.field, *place, self.sep]

    def pair_prompt(self, kind: str | None, place: list[int], caption: list[int]) -> list[int]:
        """`[CLS] generate question answer pair [unused0] TYPE [unused0] x0 y0 x1 y1 [unused0] CAPTION [SEP]`.

        Args:
            kind: the type; None hides it.
        """
        asked = self.hidden if kind is None else self.number[kind]
        return [self.cls, *self.ids(PAIR_TASK), self.field, asked, self.field, *place, self.field, *caption, self.sep]

    def vqa_prompt(self, question: list[int]) -> list[int]:
        """`[CLS] answer the question [unused0] QUESTION [SEP]`: all that a filter is told."""
        return [self.cls, *self.ids(VQA_TASK), self.field, *question, self.sep]
