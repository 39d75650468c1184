"""In-context-learning tasks from packaged reference tables: which abilities does a quantized model keep?

A task is versioned and hashed: instruction, demonstrations and items are fixed by (tables, seed), the same for
every variant. Prompts are plain pattern completion (`Japan -> Tokyo`), no chat template, for every arm alike.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mmlib import store
from mmlib.errors import UserError
from mmlib.metrics.continuations import Question

VERSION = 1
WORDS = Path(__file__).with_name("words.csv")
CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "SA": "South America",
              "OC": "Oceania"}  # fmt: skip

DISSOLVED = ("AN", "CS")  # Netherlands Antilles, Serbia and Montenegro: still in the table
# Columns of the packaged table after word and part of speech, in Penn tags.
INFLECTIONS = {"noun": ("NNS",), "verb": ("VBD", "VBN", "VBG", "VBZ"), "adj": ("JJR", "JJS")}


@dataclass(frozen=True)
class Fact:
    """One row of a table: a query, its answer, and wrong answers particular to it (empty: drawn from others)."""

    query: str
    answer: str
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """An ability task: what is asked, worked examples, and the items that are scored."""

    name: str
    instruction: str
    demonstrations: tuple[Fact, ...]
    items: tuple[Fact, ...]
    choices: int
    seed: int

    def __post_init__(self) -> None:
        shown = {fact.query for fact in self.demonstrations}
        if leaked := next((fact.query for fact in self.items if fact.query in shown), None):
            raise UserError(f"item `{leaked}` of task {self.name} stands among its demonstrations",
                            "draw demonstrations and items from disjoint parts of the table")  # fmt: skip
        queries = [fact.query for fact in self.items]
        if twice := next((query for query in queries if queries.count(query) > 1), None):
            raise UserError(f"task {self.name} asks `{twice}` twice", "remove the duplicate item")

    @property
    def hash(self) -> str:
        """Identifies wording, demonstrations, items and candidate draw."""
        return store.digest({"version": VERSION, **asdict(self)})[:16]

    def prefix(self, shots: int) -> str:
        """Everything before the query: the instruction and `shots` demonstrations, a line each."""
        if shots > len(self.demonstrations):
            raise UserError(f"task {self.name} has {len(self.demonstrations)} demonstrations, {shots} asked for",
                            "lower quantization.bits.shots")  # fmt: skip
        lines = [self.instruction, *(f"{fact.query} -> {fact.answer}" for fact in self.demonstrations[:shots])]
        return "\n".join(lines) + "\n"

    def questions(self) -> list[Question]:
        """The items with `choices` candidates each, in an order drawn from the seed."""
        draw = random.Random(f"{self.name}/{self.seed}")
        answers = sorted({fact.answer for fact in self.items})
        return [self._question(fact, answers, draw) for fact in self.items]

    def _question(self, fact: Fact, answers: list[str], draw: random.Random) -> Question:
        others = [a for a in (fact.wrong or answers) if a != fact.answer]
        if len(others) < self.choices - 1:
            raise UserError(f"task {self.name} has {len(others)} wrong answers for `{fact.query}`, "
                            f"{self.choices} choices need {self.choices - 1}",
                            "lower quantization.bits.choices or raise icl_items")  # fmt: skip
        candidates = [fact.answer, *draw.sample(others, self.choices - 1)]
        draw.shuffle(candidates)
        texts = tuple(f" {candidate}" for candidate in candidates)
        return Question(f"{fact.query} ->", texts, candidates.index(fact.answer))

    def ids(self) -> list[str]:
        """Unit ids `task/query`, the unit of resampling."""
        return [f"{self.name}/{fact.query}" for fact in self.items]


def build(name: str, root: Path, *, items: int, shots: int, choices: int, seed: int = 0) -> Task:
    """The task `name` with `items` items and `shots` demonstrations that are never items.

    Raises:
        UserError: unknown task, too few facts, or a duplicate query.
    """
    if name not in TASKS:
        raise UserError(f"unknown task `{name}`", f"choose from: {', '.join(sorted(TASKS))}")
    instruction, table = TASKS[name]
    facts = table(root)
    queries = [fact.query for fact in facts]
    if len(set(queries)) != len(queries):
        twice = next(query for query in queries if queries.count(query) > 1)
        raise UserError(f"task {name} asks `{twice}` twice", "remove the duplicate from its table")
    if len(facts) < items + shots:
        raise UserError(f"task {name} has {len(facts)} facts, {items} items + {shots} demonstrations asked for",
                        "lower quantization.bits.icl_items")  # fmt: skip
    random.Random(f"{name}/{seed}").shuffle(facts)
    return Task(name, instruction, tuple(facts[:shots]), tuple(facts[shots : shots + items]), choices, seed)


def _csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} is missing", "run `python -m mmlib fetch`")
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _countries(root: Path, count: int = 70) -> list[dict]:
    """The most populous countries: a model of this size has read about them."""
    rows = json.loads((root / "data/tables/countries.json").read_text(encoding="utf-8"))
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    named = [r for r in rows if r.get("capital") and r["iso"] not in DISSOLVED]
    return sorted(named, key=lambda r: -r["population"])[:count]


def _capitals(root: Path) -> list[Fact]:
    return [Fact(r["name"], r["capital"]) for r in _countries(root)]


def _continents(root: Path) -> list[Fact]:
    return [Fact(r["name"], CONTINENTS[r["continentcode"]], tuple(CONTINENTS.values())) for r in _countries(root)]


def _demonyms(root: Path) -> list[Fact]:
    known = {row["country"]: row["demonym"] for row in _csv(root / "data/tables/demonyms.csv") if row["demonym"]}
    rows = [(r["name"], known.get(r["name"], "/")) for r in _countries(root, 90)]
    return [Fact(name, demonym) for name, demonym in rows if not set("/,(") & set(demonym)]


def _elements(root: Path) -> list[Fact]:
    rows = _csv(root / "data/tables/elements.csv")
    return [Fact(row["name"].lower(), row["symbol"]) for row in rows if int(row["atomic_number"]) <= 56]


def _words(kind: str) -> list[dict[str, str]]:
    return [row for row in _csv(WORDS) if row["kind"] == kind]


def _antonyms(root: Path) -> list[Fact]:
    return [Fact(row["word"], row["answer"]) for row in _words("antonym")]


def _inflections(root: Path, kind: str) -> dict[str, dict[str, str]]:
    """Word -> {tag: form} for our words of a kind; of several accepted forms (`a/b`) the table's first."""
    path = root / "data/tables/inflections.csv"
    if not path.is_file():
        raise UserError(f"{path} is missing", "run `python -m mmlib fetch`")
    wanted = {row["word"]: {} for row in _words(kind)}
    with path.open(newline="", encoding="utf-8") as stream:
        for word, part_of_speech, *forms in csv.reader(stream):
            if word in wanted and part_of_speech == kind:
                named = zip(INFLECTIONS[kind], forms, strict=False)
                wanted[word] = {tag: form.split("/")[0] for tag, form in named if form}
    return wanted


def _inflected(kind: str, tag: str, wrong: Callable[[str, dict[str, str]], tuple[str, ...]]):
    """Facts word -> its form `tag`; the words are ours, the forms are the packaged inflection table's."""

    def table(root: Path) -> list[Fact]:
        forms = _inflections(root, kind)
        return [Fact(word, form[tag], wrong(word, form)) for word, form in forms.items() if tag in form]

    return table


def _other_tenses(word: str, forms: dict[str, str]) -> tuple[str, ...]:
    wrong = (word, forms.get("VBZ", word + "s"), forms.get("VBG", word + "ing"))
    return wrong if forms["VBD"] not in wrong else (word + "ed", *wrong[1:])


def _wrong_plurals(word: str, forms: dict[str, str]) -> tuple[str, ...]:
    return tuple(w for w in (word, word + "s", word + "es", word + "en", word + "ies") if w != forms["NNS"])[:3]


def _other_degrees(word: str, forms: dict[str, str]) -> tuple[str, ...]:
    return (word, forms.get("JJS", word + "est"), word + "ly")


def category_words(root: Path) -> dict[str, list[str]]:
    """Words of four plain categories, from the tables of the tasks."""
    named = {"country": _capitals(root), "element": _elements(root)}
    words = {category: [fact.query for fact in facts] for category, facts in named.items()}
    return words | {
        name: [row["word"] for row in _words(kind)] for name, kind in (("adjective", "adj"), ("verb", "verb"))
    }


TASKS: dict[str, tuple[str, Callable[[Path], list[Fact]]]] = {
    "antonym": ("Give the opposite of each word.", _antonyms),
    "capital": ("Give the capital of each country.", _capitals),
    "comparative": ("Give the comparative of each adjective.", _inflected("adj", "JJR", _other_degrees)),
    "continent": ("Give the continent of each country.", _continents),
    "demonym": ("Give the adjective of nationality for each country.", _demonyms),
    "element": ("Give the symbol of each chemical element.", _elements),
    "past": ("Give the past tense of each verb.", _inflected("verb", "VBD", _other_tenses)),
    "plural": ("Give the plural of each noun.", _inflected("noun", "NNS", _wrong_plurals)),
}
