"""The instruction pool: the mixture of LLaVA-1.5 (mix-665K) at one fiftieth, about emoji scenes, in LLaVA's layout.

Twelve kinds of record in the shares of the original, under its ten task labels. As there, several questions about a
picture are merged into one record, pictures are shared between tasks, and short answers are asked for by a suffix.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmlib.errors import UserError
from mmlib.formats.llava import IMAGE_MARK, Record, Turn
from mmlib.world import language
from mmlib.world.language import article, enumerate_words
from mmlib.world.nouns import by_name, load_nouns, of_category
from mmlib.world.questions import ask, unique
from mmlib.world.scenes import Scene

SCALE = 50
SHORT = "answer with a word ."
Turns = list[tuple[str, str]]  # (question, answer)


@dataclass(frozen=True)
class Kind:
    """A kind of record: task label, its number of records in mix-665K, folder of its pictures, questions a record."""

    name: str
    label: str
    original: int
    folder: str | None
    turns: tuple[int, int]
    asks: tuple[str, ...] = ()
    suffix: str = ""


# Counts: LLaVA's author in issue 702. Turns: many for VQA and GQA, where LLaVA merges all questions of a picture.
KINDS = (
    Kind("conversation", "llava_instruct", 57_669, "coco", (2, 4)),
    Kind("detail", "llava_instruct", 23_240, "coco", (1, 1)),
    Kind("reasoning", "llava_instruct", 76_803, "coco", (1, 1)),
    Kind("vqa", "vqav2", 82_783, "coco", (3, 6), ("exist", "count", "color", "where", "what", "size", "background"),
         SHORT),
    Kind("knowledge", "okvqa", 8_998, "coco", (1, 1), ("kind", "place", "held"), SHORT),
    Kind("choice", "aokvqa", 66_160, "coco", (1, 1), ("choice",)),
    Kind("refer", "refcoco", 48_447, "coco", (2, 4), ("refer",)),
    Kind("region", "vg", 86_417, "vg", (2, 4), ("region",)),
    Kind("spatial", "gqa", 72_140, "gqa", (3, 6), ("side", "above", "beside", "beside_color"), SHORT),
    Kind("ocr", "ocrvqa", 80_000, "ocr_vqa", (1, 2), ("sign", "sign", "exist"), SHORT),
    Kind("caption", "textcaps", 21_953, "textvqa", (1, 1)),
    Kind("chat", "sharegpt", 40_688, None, (1, 4)),
)  # fmt: skip
LABELS = frozenset(kind.label for kind in KINDS)
# Share of the pool's pictures, by folder: coco's are shared by seven kinds.
FOLDERS = {"coco": 0.4, "vg": 0.15, "gqa": 0.15, "ocr_vqa": 0.2, "textvqa": 0.1}


def build(scenes: list[Scene], size: int, seed: int) -> list[Record]:
    """A pool of about `size` records about training scenes, kinds in the order and shares of mix-665K.

    Args:
        scenes: are dealt to the folders of `FOLDERS`; pictures with a sign go to OCR first.
    Raises:
        UserError: too few scenes, or a scene that is not of the training split.
    """
    if alien := next((scene for scene in scenes if not scene.id.startswith("train")), None):
        raise UserError(f"scene {alien.id} is not a training scene", "draw the pool's scenes with split `train`")
    folders, total = deal(scenes), sum(kind.original for kind in KINDS)
    return [
        record
        for kind in KINDS
        for record in _of_kind(kind, folders.get(kind.folder), max(1, round(size * kind.original / total)), seed)
    ]


def _of_kind(kind: Kind, scenes: list[Scene] | None, count: int, seed: int) -> Iterator[Record]:
    draw, number = random.Random(f"pool/{seed}/{kind.name}"), 0
    pictures = _endless(scenes, draw) if scenes else None
    while number < count:
        scene = next(pictures) if pictures else None
        turns = MAKERS[kind.name](scene, draw) if kind.name in MAKERS else _asked(kind, scene, draw)
        if turns:
            yield _record(f"{kind.name}-{number:05d}", kind, scene, turns)
            number += 1


def _endless(scenes: list[Scene], draw: random.Random) -> Iterator[Scene]:
    """The scenes in a drawn order, again and again."""
    while True:
        yield from draw.sample(scenes, len(scenes))


def _record(name: str, kind: Kind, scene: Scene | None, turns: Turns) -> Record:
    """A record in the public layout: the picture's mark stands in the first turn, chats have a `model` instead."""
    said = [Turn(speaker, text) for pair in turns for speaker, text in zip(("human", "gpt"), pair, strict=True)]
    if scene is None:
        return Record(name, None, tuple(said), kind.label, "templates")
    said[0] = Turn("human", f"{IMAGE_MARK}\n{said[0].text}")
    return Record(name, f"{kind.folder}/{scene.id}.png", tuple(said), kind.label)


def kind_of(record: Record) -> str:
    """Name of the kind, from the record's id."""
    return record.id.rpartition("-")[0].removeprefix("copy-")


def scene_id(image: str) -> str:
    """`coco/train0-000001.png` -> `train0-000001`."""
    return image.rpartition("/")[2].removesuffix(".png")


def deal(scenes: list[Scene]) -> dict[str, list[Scene]]:
    """Scenes by folder; every picture of `ocr_vqa` has a sign."""
    with_sign = [scene for scene in scenes if scene.sign]
    signs = with_sign[: round(FOLDERS["ocr_vqa"] * len(scenes))]
    taken = {scene.id for scene in signs}
    rest, folders, start = [scene for scene in scenes if scene.id not in taken], {"ocr_vqa": signs}, 0
    for folder, share in FOLDERS.items():
        if folder != "ocr_vqa":
            count = round(share * len(scenes))
            folders[folder] = rest[start : start + count]
            start += count
    if empty := next((folder for folder, part in folders.items() if not part), None):
        raise UserError(f"{len(scenes)} scenes leave folder `{empty}` of the pool empty", "draw more scenes")
    return folders


def _asked(kind: Kind, scene: Scene, draw: random.Random) -> Turns:
    """Different questions of the kind's types, merged into one record; the suffix stands in every turn."""
    turns: dict[str, str] = {}
    wanted = draw.randint(*kind.turns)
    for _ in range(4 * wanted):
        made = ask(draw.choice(kind.asks), scene, draw)
        if made and len(turns) < wanted:
            turns.setdefault(f"{made.text} {kind.suffix}".strip(), made.answer)
    return list(turns.items())


def _conversation(scene: Scene, draw: random.Random) -> Turns:
    names = list(dict.fromkeys(o.noun for o in scene.objects))
    turns = [("what do you see ?", f"i see {enumerate_words([article(n) for n in names])} .")]
    for thing in unique(scene):
        turns += [
            (f"where is the {thing.noun} ?", f"the {thing.noun} is in the {thing.where} ."),
            (f"what can you say about the {thing.noun} ?", f"the {thing.noun} is {thing.size} and on {thing.colour} ."),
        ]
    number = language.DIGITS[len(scene.objects)]
    turns.append(("how many things are there ?", f"there are {number} things in all ."))
    return draw.sample(turns, min(len(turns), draw.randint(2, 4)))


def _detail(scene: Scene, draw: random.Random) -> Turns:
    question = draw.choice(("describe the picture in detail .", "what can be seen , in detail ?"))
    return [(question, language.detail(scene, draw))]


def _reasoning(scene: Scene, draw: random.Random) -> Turns:
    """Two steps and a conclusion: from what is seen to what is known about it."""
    if draw.random() < 0.5 and (pair := _same_kind(scene, draw)):
        first, second = pair
        kind = by_name()[first.noun].category
        steps = " ".join(f"the {o.noun} in the {o.where} is of the kind {kind} ." for o in pair)
        return [("which two things belong together , and why ?",
                 f"{steps} so the {first.noun} and the {second.noun} belong together .")]  # fmt: skip
    thing = draw.choice(scene.objects)
    place = by_name()[thing.noun].place
    return [(f"which thing belongs to the {place} , and why ?",
             f"in the {thing.where} is {article(thing.noun)} . the {thing.noun} is found in the {place} . "
             f"so it is the {thing.noun} .")]  # fmt: skip


def _same_kind(scene: Scene, draw: random.Random) -> list | None:
    kinds: dict[str, dict[str, object]] = {}
    for thing in scene.objects:
        kinds.setdefault(by_name()[thing.noun].category, {})[thing.noun] = thing
    pairs = [list(group.values()) for group in kinds.values() if len(group) == 2]
    return draw.choice(pairs) if pairs else None


def _caption(scene: Scene, draw: random.Random) -> Turns:
    return [("write one sentence about the picture .", language.short_caption(scene, draw))]


def _chat(scene: None, draw: random.Random) -> Turns:
    """Text only, what a language model would know anyway: facts, lists, sorting, odd words, what there is more of."""
    makers = (_chat_fact, _chat_list, _chat_sort, _chat_odd, _chat_odd, _chat_more, _chat_often, _chat_often)
    return [draw.choice(makers)(draw) for _ in range(draw.randint(1, 4))]


def _chat_fact(draw: random.Random) -> tuple[str, str]:
    noun = draw.choice(load_nouns())
    question, answer = draw.choice((
        (f"what kind of thing is {article(noun.noun)} ?", f"{article(noun.noun)} is of the kind {noun.category} ."),
        (f"where does {article(noun.noun)} belong ?", f"{article(noun.noun)} is usually found in the {noun.place} ."),
    ))  # fmt: skip
    return question, answer


def _chat_list(draw: random.Random) -> tuple[str, str]:
    kind = draw.choice(load_nouns()).category
    return f"name three things of the kind {kind} .", f"{enumerate_words(draw.sample(of_category(kind), 3))} ."


def _chat_odd(draw: random.Random) -> tuple[str, str]:
    many, one = draw.sample(sorted({noun.category for noun in load_nouns()}), 2)
    odd = draw.choice(of_category(one))
    words = [*draw.sample(of_category(many), draw.randint(2, 4)), odd]
    draw.shuffle(words)
    asked = draw.choice(
        ("which word does not belong to the other ones", "which one does not belong", "name the odd word")
    )
    listed = " , ".join(words)  # before the question, as a picture is
    if draw.random() < 0.5:
        return f"{listed} : {asked} ? {SHORT}", odd
    return f"{listed} : {asked} ?", f"{odd} does not belong , it is of the kind {one} ."


def _chat_often(draw: random.Random) -> tuple[str, str]:
    """Two words counted in a list: yes and no equally often."""
    more, less = draw.sample([noun.noun for noun in load_nouns()], 2)
    fewer = draw.randint(1, 2)
    words = [more] * draw.randint(fewer + 1, 4) + [less] * fewer
    draw.shuffle(words)
    yes = draw.random() < 0.5
    first, second = (more, less) if yes else (less, more)
    asked = draw.choice(
        ("are there more {a} words than {b} words", "is the number of {a} words more than that of {b} words")
    )
    return f"{' , '.join(words)} : {asked.format(a=first, b=second)} ? {SHORT}", "yes" if yes else "no"


def _chat_more(draw: random.Random) -> tuple[str, str]:
    first, second = draw.sample(language.DIGITS, 2)
    more = first if language.DIGITS.index(first) > language.DIGITS.index(second) else second
    if draw.random() < 0.5:
        return f"which number is more , {first} or {second} ?", f"{more} is more ."
    return f"is {first} more than {second} ? {SHORT}", "yes" if first == more else "no"


def _chat_sort(draw: random.Random) -> tuple[str, str]:
    first, second = draw.sample(sorted({noun.category for noun in load_nouns()}), 2)
    words = [(word, kind) for kind in (first, second) for word in draw.sample(of_category(kind), 2)]
    draw.shuffle(words)
    sorted_words = [enumerate_words([word for word, of in words if of == kind]) for kind in (first, second)]
    return (f"sort these words : {' , '.join(word for word, _ in words)} .",
            f"{first} : {sorted_words[0]} . {second} : {sorted_words[1]} .")  # fmt: skip


MAKERS: dict[str, Callable[..., Turns]] = {
    "conversation": _conversation,
    "detail": _detail,
    "reasoning": _reasoning,
    "caption": _caption,
    "chat": _chat,
}
