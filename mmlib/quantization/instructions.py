"""Instruction following, checked by rules: own prompts in the manner of IFEval, checkers of the package if-verifiable.

A substitute for the paper's judge (ChatGPT comparing two answers), and named so wherever a number of it stands.
Some kinds are passed by nonsense ("no commas"); `null_answers` shows how many, beside every score.
"""

from __future__ import annotations

import csv
import json
import random
import re
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.errors import UserError

VERSION = 2  # 2: more prompts of the live kinds
PROMPTS = Path(__file__).with_name("instructions.csv")
VOCABULARY = "data/tables/inflections.csv"
# Kinds that no null answer passes and that the 16-bit model sometimes obeys: here a score can move both ways, so most
# prompts are spent here. Chosen by the answers of the 16-bit model alone.
LIVE = (
    "keywords:frequency",
    "detectable_format:number_bullet_lists",
    "detectable_format:json_format",
    "detectable_content:number_placeholders",
)
NULL_WORDS = 25  # length of a random answer, about that of a model's
SMALL_WORDS = frozenset(  # function words, which the table does not inflect
    {"a", "an", "and", "are", "as", "at", "be", "but", "by", "can", "do", "for", "from", "had", "has", "have", "he",
     "her", "his", "i", "if", "in", "is", "it", "its", "me", "my", "no", "not", "of", "on", "or", "our", "she", "so",
     "that", "the", "their", "them", "they", "this", "to", "was", "we", "were", "what", "when", "which", "who", "will",
     "with", "would", "you", "your"}
)  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """One request with one rule that a program can check."""

    kind: str  # IFEval's name of the rule, e.g. `punctuation:no_comma`
    text: str
    arguments: str  # of the rule, as JSON

    @property
    def id(self) -> str:
        """The unit of resampling."""
        return f"{self.kind}/{self.text}"


def prompts(per_kind: int, per_live_kind: int | None = None) -> list[Prompt]:
    """The first `per_kind` prompts of every kind, kinds in the order of the file; of `LIVE` kinds `per_live_kind`.

    Raises:
        UserError: fewer are there, a prompt appears twice, or its kind has no checker.
    """
    with PROMPTS.open(newline="", encoding="utf-8") as stream:
        rows = [Prompt(row["kind"], row["prompt"], row["arguments"]) for row in csv.DictReader(stream)]
    refuse_bad_prompts(rows)
    asked = {row.kind: per_kind for row in rows}
    asked |= dict.fromkeys(LIVE, per_kind if per_live_kind is None else per_live_kind)
    chosen = {kind: [row for row in rows if row.kind == kind][:count] for kind, count in asked.items()}
    for kind, part in chosen.items():
        if len(part) < asked[kind]:
            raise UserError(f"{kind} has {len(part)} prompts, {asked[kind]} asked for",
                            "lower quantization.bits.prompts_per_kind or prompts_per_live_kind")  # fmt: skip
    return [row for part in chosen.values() for row in part]


def refuse_bad_prompts(rows: list[Prompt]) -> None:
    """Raise for a duplicate prompt or an unknown kind."""
    texts = [row.text for row in rows]
    if twice := next((text for text in texts if texts.count(text) > 1), None):
        raise UserError(f"instruction `{twice}` appears twice", f"remove the duplicate from {PROMPTS.name}")
    known = _checkers()
    if unknown := next((row.kind for row in rows if row.kind not in known), None):
        raise UserError(f"unknown kind of instruction `{unknown}`", f"choose from: {', '.join(sorted(known))}")


def _checkers() -> dict[str, Any]:
    import langdetect
    from if_verifiable.ifeval import INSTRUCTION_DICT

    langdetect.DetectorFactory.seed = 0  # its guess is sampled; two kinds ask whether the text is English
    return INSTRUCTION_DICT


def follow(prompt: Prompt, answer: str) -> dict[str, float]:
    """`strict`: the answer obeys the rule. `loose`: it or a variant without first/last line or `*` does (IFEval)."""
    from if_verifiable.common import evaluate_instructions

    arguments = [json.loads(prompt.arguments)]
    _, scores = evaluate_instructions(answer, [prompt.kind], arguments, prompt.text, _checkers())
    return {"strict": scores.binary_strict, "loose": scores.binary_loose}


def degeneration(answer: str, vocabulary: frozenset[str]) -> dict[str, float]:
    """How far an answer is from nonsense; reported beside the score and never part of it.

    `distinct`: different word pairs as a share of all (repetition lowers it; 0 for an empty answer).
    `known`: share of alphabetic words that are English words.
    """
    words = re.findall(r"[^\W\d_]+", answer.lower())
    pairs = list(pairwise(words)) or [tuple(words)]
    distinct = len(set(pairs)) / len(pairs) if words else 0.0
    known = sum(word in vocabulary for word in words) / len(words) if words else 0.0
    return {"distinct": round(distinct, 6), "known": round(known, 6)}


def vocabulary(root: Path) -> frozenset[str]:
    """English words: all base and inflected forms of the packaged inflection table, and the smallest words."""
    path = root / VOCABULARY
    if not path.is_file():
        raise UserError(f"{path} is missing", "run `python -m mmlib fetch`")
    return frozenset(re.findall(r"[a-z]+", path.read_text(encoding="utf-8").lower())) | SMALL_WORDS


def measure(items: list[Prompt], answers: list[str], words: frozenset[str]) -> dict[str, list[float]]:
    """Per prompt: strict, loose, distinct, known."""
    rows = [follow(p, a) | degeneration(a, words) for p, a in zip(items, answers, strict=True)]
    return {name: [row[name] for row in rows] for name in ("strict", "loose", "distinct", "known")}


def null_answers(items: list[Prompt], words: frozenset[str]) -> dict[str, list[str]]:
    """Answers that follow nothing on purpose: empty, the request echoed, random English words."""
    pool = sorted(words)
    random_words = [" ".join(random.Random(f"null/{p.text}").choices(pool, k=NULL_WORDS)) for p in items]
    return {"empty": [""] * len(items), "echo": [p.text for p in items], "random": random_words}


def floorless(items: list[Prompt], nulls: list[dict[str, list[float]]]) -> list[int]:
    """Numbers of the prompts whose kind no null answer ever passes strictly: there a point must be earned."""
    passed = {item.kind for scores in nulls for item, value in zip(items, scores["strict"], strict=True) if value}
    return [number for number, item in enumerate(items) if item.kind not in passed]


def digest(items: list[Prompt]) -> str:
    """Identifies prompts, rules and their arguments."""
    return store.digest({"version": VERSION, "prompts": [asdict(item) for item in items]})[:16]
