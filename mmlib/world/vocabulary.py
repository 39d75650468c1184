"""A word-level tokenizer for the world's language: one token per word, coordinate and bracket."""

from __future__ import annotations

import random
import re
from functools import cache
from typing import TYPE_CHECKING

from mmlib.world import language, pool
from mmlib.world.nouns import BACKGROUNDS, CELLS, COLOURS, SIGNS, SIZES, load_nouns
from mmlib.world.questions import wordings
from mmlib.world.scenes import draw_scenes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The end sign must not have id 2: transformers' CLIP then pools the token with the largest id instead of the end.
PAD, BOS, IMAGE, EOS = "<pad>", "<bos>", "<image>", "<eos>"
USER, ASSISTANT = "user", "assistant"
SPECIAL = (PAD, BOS, IMAGE, EOS)
COORDINATES = tuple(f"{value / 100:.2f}" for value in range(101))
LOOKUPS = ("find", "name", "sign", "none")  # words of stage 1 of LLaVA
SIGNS_OF_TEXT = ("[", "]", ",", ".", "?", ":")
SPLIT = r"<\w+>|\d\.\d\d|[\[\],]|[^\s\[\],<]+"


@cache
def words() -> tuple[str, ...]:
    """Special tokens, then all words that the world's texts use, sorted."""
    scenes, draw = draw_scenes("train", 2000, 0), random.Random(0)
    texts = [turn.text for record in pool.build(scenes, 3000, 0) for turn in record.turns]
    texts += [language.caption(scene, draw, held_out) for scene in scenes[:300] for held_out in (False, True)]
    texts += [*language.ALT_FILLERS, *_patterns()]
    used = {word for text in texts for word in text.replace("<image>", " ").split() if not word.startswith("[")}
    facts = {word for noun in load_nouns() for word in (noun.noun, noun.category, noun.place)}
    named = {*CELLS, *COLOURS, *SIZES, *SIGNS, *BACKGROUNDS, *language.DIGITS, *LOOKUPS, USER, ASSISTANT}
    return (*SPECIAL, *sorted({*used, *facts, *named, *COORDINATES, *SIGNS_OF_TEXT}))


def _patterns() -> list[str]:
    """All wordings of questions, without their gaps: a sample of the pool may miss the rarest."""
    patterns = [wording for kind in wordings().values() for part in kind.values() for wording in part]
    return [re.sub(r"\{\w+\}", " ", pattern) for pattern in patterns]


def build_tokenizer() -> PreTrainedTokenizerBase:
    """Lower-cased words; unknown ones become padding. Pads on the right."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words())}, unk_token=PAD))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, bos_token=BOS, eos_token=EOS, additional_special_tokens=[IMAGE],
        padding_side="right",
    )  # fmt: skip
