"""Benchmarks: questions about test scenes in held-out wordings, balanced, each with the score of the best constant.

Four of them ask for what no record of the pool teaches directly (`trained=False`): comparing two counts, the odd one
out, existence of a pair of thing and colour, and where the sign is.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from mmlib.errors import UserError
from mmlib.metrics import grounding
from mmlib.world.language import article
from mmlib.world.nouns import by_name, load_nouns
from mmlib.world.pool import SHORT
from mmlib.world.questions import Question, ask, wordings
from mmlib.world.scenes import Scene, draw_scenes, frequencies

POPULAR = 30  # nouns that count as popular: the commonest of the world
NEGATIVES = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: question kinds in equal parts, how an answer is judged, whether the pool trains it directly.

    Attributes:
        balance: at most this share of the items may have the same answer (None: as the world gives it).
        guess_present: the answer is one of the things in the picture, so chance is a guess among their names.
    """

    name: str
    kinds: tuple[str, ...]
    suffix: str = SHORT
    judge: str = "exact"
    trained: bool = True
    balance: float | None = None
    guess_present: bool = False


@dataclass(frozen=True)
class Item:
    """One question about one test scene; `category` is the question kind, for existence that of the negatives."""

    id: str
    scene: Scene
    text: str
    answer: str
    category: str


BENCHMARKS = (
    Benchmark("existence", ("exist",), balance=0.5),
    Benchmark("count", ("count",), balance=0.25),
    Benchmark("color", ("color",), balance=0.15),
    Benchmark("where", ("where",), balance=0.15),
    Benchmark("what", ("what",), guess_present=True),
    Benchmark("choice", ("choice",), suffix="", balance=0.25),
    Benchmark("knowledge", ("kind", "place", "held")),
    Benchmark("ocr", ("sign",), balance=0.1),
    Benchmark("spatial", ("side", "above"), balance=0.5),
    Benchmark("neighbour", ("beside", "beside_color")),
    Benchmark("referring", ("refer",), suffix="", judge="box"),
    Benchmark("compare", ("compare",), trained=False, balance=0.5),
    Benchmark("odd", ("odd",), trained=False, guess_present=True),
    Benchmark("pairing", ("exist_color",), trained=False, balance=0.5),
    Benchmark("sign_place", ("sign_place",), trained=False, balance=0.15),
)


def by_name_of(name: str) -> Benchmark:
    """The benchmark of that name."""
    if found := next((b for b in BENCHMARKS if b.name == name), None):
        return found
    raise UserError(f"unknown benchmark `{name}`", f"choose from: {', '.join(b.name for b in BENCHMARKS)}")


def build(benchmark: Benchmark, scenes: list[Scene], count: int, seed: int) -> list[Item]:
    """`count` items, at most one per scene and question kind, no answer more frequent than `balance` allows.

    Raises:
        UserError: a scene of the training split, or too few scenes for so many items.
    """
    if alien := next((scene for scene in scenes if scene.id.startswith("train")), None):
        raise UserError(f"scene {alien.id} is a training scene", "draw benchmarks from `val`, `test` or `novel`")
    draw, items, used = random.Random(f"benchmark/{seed}/{benchmark.name}"), [], Counter()
    limit = count if benchmark.balance is None else -(-count * benchmark.balance // 1)
    for question, scene in _questions(benchmark, scenes, draw):
        if used[question.answer] < limit:
            used[question.answer] += 1
            name = f"{benchmark.name}/{len(items):04d}"
            text = f"{question.text} {benchmark.suffix}".strip()
            items.append(Item(name, scene, text, question.answer, question.kind))
        if len(items) == count:
            return items
    culprit = f"{len(scenes)} scenes give {len(items)} of {count} items of benchmark {benchmark.name}"
    raise UserError(culprit, "draw more scenes or ask for fewer items")


def build_all(test_scenes: int, count: int, seed: int) -> dict[str, list[Item]]:
    """The items of every benchmark by its name, `count` each, on `test_scenes` scenes of the test split."""
    scenes = draw_scenes("test", test_scenes, seed)
    return {benchmark.name: build(benchmark, scenes, count, seed) for benchmark in BENCHMARKS}


def _questions(benchmark: Benchmark, scenes: list[Scene], draw: random.Random) -> Iterator[tuple[Question, Scene]]:
    for number, scene in enumerate(scenes):
        if benchmark.name == "existence":
            yield from ((question, scene) for question in existence(scene, draw, NEGATIVES[number % 3]))
        else:
            kind = benchmark.kinds[number % len(benchmark.kinds)]
            if question := ask(kind, scene, draw, held_out=True):
                yield question, scene


def existence(scene: Scene, draw: random.Random, negative: str) -> list[Question]:
    """POPE: one thing that is there and one that is not, drawn from all, from the commonest, or from what goes with
    the things that are there. Both questions carry the kind of the negative."""
    absent = [noun.noun for noun in load_nouns() if not scene.count(noun.noun)]
    places = {by_name()[o.noun].place for o in scene.objects}
    pools = {
        "random": absent,
        "popular": [name for name in frequencies()[0][:POPULAR] if name in absent],
        "adversarial": [name for name in absent if by_name()[name].place in places],
    }
    there, not_there = draw.choice(scene.objects).noun, draw.choice(pools[negative] or absent)
    texts = [draw.choice(wordings()["exist"]["held_out"]).format(a_noun=article(n)) for n in (there, not_there)]
    return [Question(negative, text, answer, noun)
            for text, answer, noun in zip(texts, ("yes", "no"), (there, not_there), strict=True)]  # fmt: skip


def judge(benchmark: Benchmark, said: str, item: Item) -> float:
    """1 for a right answer: the same words, or a box that overlaps by more than half."""
    if benchmark.judge == "box":
        return grounding.box_accuracy(said, item.answer)
    return float(said.strip() == item.answer)


def chance(benchmark: Benchmark, items: list[Item]) -> float:
    """What is reached without looking where the question points: the best constant answer per question kind, or, where
    the answer is one of the things in the picture, a guess among their names if that is better."""
    by_kind = defaultdict(list)
    for item in items:
        by_kind[item.category].append(item)
    constant = sum(
        max(sum(judge(benchmark, answer, item) for item in part) for answer in {item.answer for item in part})
        for part in by_kind.values()
    )
    guesses = sum(1 / len({o.noun for o in item.scene.objects}) for item in items) if benchmark.guess_present else 0
    return max(constant, guesses) / len(items)
