"""Instruction mixtures in miniature (section 5.1.4): one base model, tuned on instruction data of different make.

A base model has read notes: a word for an operation, a list of four digits, the result. Tuning teaches it to do the
same when it is told so in other words: as a task (one fixed word) or in a chat (several wordings). A third source
writes itself: the base model, tuned on a few seed tasks, invents tasks and answers them, errors included. The four
strategies of the survey's Table 10 choose or rewrite what this third source produces. All arms get the same steps.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib.evidence import Evidence
from mmlib.survey_llm import training
from mmlib.survey_llm.transformer import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmlib.survey_llm.transformer import Decoder

DIGITS = 4  # of a list, and of an answer
OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # (R, DIGITS) -> (R, DIGITS)
    "copy": lambda x: x, "reverse": lambda x: x[:, ::-1], "left": lambda x: np.roll(x, -1, 1),
    "right": lambda x: np.roll(x, 1, 1), "halves": lambda x: np.roll(x, 2, 1), "more": lambda x: (x + 1) % 10,
    "less": lambda x: (x - 1) % 10, "complement": lambda x: 9 - x,
}  # fmt: skip
COUNT = len(OPERATIONS)
BLANK, EQUALS, NOTE, TASK, USER = range(10, 15)
NOTE_WORDS, TASK_WORDS = 15, 15 + COUNT  # one word an operation in each of these forms
CHAT_WORDS, WORDS, WORDINGS = 15 + 2 * COUNT, 16, 2  # a chat asks in two words; WORDINGS pairs an operation
VOCABULARY = CHAT_WORDS + WORDS
PREFIX, ANSWER = 4, 4 + DIGITS + 1  # tokens before the list, and before the answer
BATCH, RATE = 32, 0.006
SINGLE = ("task", "chat", "self")
STRATEGIES = ("complexity", "diversity", "difficulty", "scaling")
TESTS = ("task", "chat", "two-step")
PAIRS = np.random.default_rng(0).permutation(WORDS**2)[: COUNT * WORDINGS].reshape(COUNT, WORDINGS)


# ---- texts -----------------------------------------------------------------------------------------------------------


def solve(operations: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """(R, DIGITS) results of operation numbers (R,) on lists (R, DIGITS)."""
    every = np.stack([apply(lists) for apply in OPERATIONS.values()])  # (COUNT, R, DIGITS)
    return every[operations, np.arange(len(lists))]


def write(form: str, operations: np.ndarray, lists: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(R, ANSWER + DIGITS) tokens of requests with right answers. A two-step request has operations (R, 2)."""
    rows = np.full((len(lists), ANSWER + DIGITS), BLANK)
    steps = operations.reshape(len(lists), -1)
    if form == "chat":
        pairs = PAIRS[steps[:, 0], rng.integers(WORDINGS, size=len(lists))]
        rows[:, PREFIX - 2], rows[:, PREFIX - 1] = CHAT_WORDS + pairs // WORDS, CHAT_WORDS + pairs % WORDS
    else:
        rows[:, PREFIX - steps.shape[1] : PREFIX] = steps + (NOTE_WORDS if form == "note" else TASK_WORDS)
    rows[:, 0] = {"note": NOTE, "chat": USER}.get(form, TASK)
    rows[:, PREFIX : PREFIX + DIGITS], rows[:, ANSWER - 1] = lists, EQUALS
    for step in steps.T:
        lists = solve(step, lists)
    rows[:, ANSWER:] = lists
    return rows


def requests(form: str, count: int, rng: np.random.Generator, chances: np.ndarray | None = None) -> np.ndarray:
    """`count` requests on lists that no test uses; `chances` of the operations, even where None."""
    lists = rng.integers(10, size=(4 * count, DIGITS))
    lists = lists[~held_out(lists)][:count]
    return write(form, rng.choice(COUNT, len(lists), p=chances), lists, rng)


def held_out(lists: np.ndarray) -> np.ndarray:
    """(R,) whether a list is kept for tests: one in five, by its digit sum."""
    return lists.sum(1) % 5 == 0


def tests(count: int) -> dict[str, np.ndarray]:
    """Test name -> rows (COUNT·count, …): the same lists and operations in each form; two-step adds another one."""
    rng, operations = np.random.default_rng(1), np.repeat(np.arange(COUNT), count)
    lists = rng.integers(10, size=(20 * len(operations), DIGITS))
    lists = np.unique(lists[held_out(lists)], axis=0)
    lists = lists[rng.permutation(len(lists))[: len(operations)]]
    both = np.stack([operations, (operations + rng.integers(1, COUNT, len(operations))) % COUNT], 1)
    forms = {"task": operations, "chat": operations, "two-step": both, "note": operations}
    return {form: write(form, asked, lists, rng) for form, asked in forms.items()}


# ---- models ----------------------------------------------------------------------------------------------------------


def tune(model: Decoder, rows: np.ndarray, steps: int, settings: dict[str, Any], seed: int, whole: bool) -> Decoder:
    """A copy of `model` after `steps` on rows in random order; loss on the answers, or on the `whole` row."""
    import torch

    rng, wanted = np.random.default_rng(seed), steps * BATCH
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(-(-wanted // len(rows)))])[:wanted]
    data = torch.from_numpy(rows[order])
    labels = data[:, 1:].clone()
    if not whole:
        labels[:, : ANSWER - 1] = IGNORED
    tuned = copy.deepcopy(model)
    training.train(tuned, data[:, :-1], labels, batch=BATCH, learning_rate=RATE, seed=seed)
    return tuned


def base_model(settings: dict[str, Any], seed: int) -> Decoder:
    """A decoder that has read notes."""
    from mmlib.survey_llm.transformer import Decoder, Shape

    steps, rng = settings["mixture_base_steps"], np.random.default_rng(1000 + seed)
    notes = requests("note", steps * BATCH, rng)
    shape = Shape(VOCABULARY, settings["mixture_width"], 2, head=16, positions="learned", longest=ANSWER + DIGITS)
    return tune(Decoder(shape, seed), notes, steps, settings, seed, whole=True)


def continued(model: Decoder, rows: np.ndarray, places: range, draw: Any = None) -> np.ndarray:
    """Rows whose tokens at `places` are the model's own: greedy, or sampled with the torch generator `draw`.

    Only what can stand at a place is chosen from: a task's word at the end of the prefix, a digit everywhere else.
    """
    import torch

    def among(at: int) -> tuple[int, int]:
        return (TASK_WORDS, CHAT_WORDS) if at == PREFIX - 1 else (0, 10)

    return training.write(model, torch.from_numpy(rows), places, draw, among=among).numpy()


def answered(model: Decoder, rows: np.ndarray) -> np.ndarray:
    """Rows with the model's greedy answers."""
    return continued(model, rows, range(ANSWER, ANSWER + DIGITS))


def surprise(model: Decoder, rows: np.ndarray) -> np.ndarray:
    """(R,) nats of the answers."""
    import torch

    return training.nats(model, torch.from_numpy(rows), DIGITS).sum(1).numpy()


# ---- the third source and its strategies -----------------------------------------------------------------------------


def lists_of(rows: np.ndarray) -> np.ndarray:
    """(R, DIGITS)."""
    return rows[:, PREFIX : PREFIX + DIGITS]


def invent(teacher: Decoder, count: int, seed: int) -> np.ndarray:
    """Up to `count` different tasks that the teacher samples, with its own greedy answers; no list of the tests."""
    import torch

    rows = np.full((3 * count, ANSWER + DIGITS), BLANK)
    rows[:, 0], rows[:, ANSWER - 1] = TASK, EQUALS
    asked = continued(teacher, rows, range(PREFIX - 1, PREFIX + DIGITS), torch.Generator().manual_seed(seed))
    asked = asked[~held_out(lists_of(asked))]
    asked = asked[np.sort(np.unique(asked, axis=0, return_index=True)[1])][:count]
    return answered(teacher, asked)


def evolved(teacher: Decoder, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A second operation for every task; the teacher answers the steps one after the other."""
    second = rows.copy()
    second[:, PREFIX - 1] = rng.permutation(rows[:, PREFIX - 1])
    second[:, PREFIX : PREFIX + DIGITS] = rows[:, ANSWER:]
    second = answered(teacher, second)
    second[:, PREFIX - 2 : PREFIX] = np.stack([rows[:, PREFIX - 1], second[:, PREFIX - 1]], 1)
    second[:, PREFIX : PREFIX + DIGITS] = rows[:, PREFIX : PREFIX + DIGITS]
    return second


def near_duplicates(teacher: Decoder, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each task with one digit of its list changed, answered by the teacher."""
    changed, at = rows.copy(), PREFIX + rng.integers(DIGITS, size=len(rows))
    changed[np.arange(len(rows)), at] = (changed[np.arange(len(rows)), at] + rng.integers(1, 10, len(rows))) % 10
    return answered(teacher, changed[~held_out(lists_of(changed))])


def balanced(rows: np.ndarray, count: int) -> np.ndarray:
    """`count` rows taken in turn from the operations, so that none is frequent."""
    asked = rows[:, PREFIX - 1]
    turn = np.array([(asked[:i] == asked[i]).sum() for i in range(len(rows))])
    return rows[np.argsort(turn, kind="stable")[:count]]


def sources(base: Decoder, settings: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Arm -> rows to tune on: `mixture_examples` of each single source, mixtures of them, and the strategies."""
    rng, count = np.random.default_rng(2000 + seed), settings["mixture_examples"]
    zipf = 1 / np.arange(1, COUNT + 1)  # what people think of first is what most seed tasks ask
    seeds = requests("task", settings["mixture_seed_tasks"], rng, rng.permutation(zipf / zipf.sum()))
    teacher = tune(base, seeds, settings["mixture_steps"], settings, seed, whole=True)
    pool = invent(teacher, 4 * count, seed)
    arms = {"task": requests("task", count, rng), "chat": requests("chat", count, rng), "self": pool[:count]}
    arms["chat + self"] = np.concatenate([arms["chat"], arms["self"]])
    arms["all three"] = np.concatenate([arms[name] for name in SINGLE])
    plain = arms["self"]
    arms["complexity"] = np.concatenate([plain[::2], evolved(teacher, plain[1::2], rng)])
    arms["diversity"] = balanced(pool, count)
    ranked = pool[np.argsort(surprise(base, pool), kind="stable")]
    arms["difficulty"] = ranked[(len(pool) - count) // 2 :][:count]
    arms["scaling"] = np.concatenate([plain, *(near_duplicates(teacher, plain, rng) for _ in range(3))])
    return arms


# ---- stage -----------------------------------------------------------------------------------------------------------


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed: right or wrong per test problem for the base and every arm; what the invented tasks are like."""
    import torch

    torch.set_num_threads(1)
    settings, seed = shard["settings"], shard["seed"]
    base, problems = base_model(settings, seed), tests(settings["mixture_items"])

    def right(model: Decoder, names: tuple[str, ...]) -> dict[str, list[float]]:
        return {n: (answered(model, problems[n]) == problems[n]).all(1).astype(float).tolist() for n in names}

    arms = sources(base, settings, seed)
    scores = {"no tuning": right(base, TESTS)}
    for arm, rows in arms.items():
        scores[arm] = right(tune(base, rows, settings["mixture_steps"], settings, seed, whole=False), TESTS)
    own = arms["self"]
    truth = (solve(own[:, PREFIX - 1] - TASK_WORDS, lists_of(own)) == own[:, ANSWER:]).all(1).mean()
    return {"seed": seed, "scores": scores, "counts": {arm: len(rows) for arm, rows in arms.items()},
            "note": float(np.mean(right(base, ("note",))["note"])), "self_right": round(float(truth), 4)}  # fmt: skip


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Exact answers per problem: the tests, `both` forms (task, chat) and `tasks` (task, two-step) in the mean.

    The arm `best single` is the single source with the highest mean over all seeds, chosen on the tests themselves:
    a mixture has to beat the luckiest choice.
    """
    evidence, count = Evidence("survey_llm", "survey_llm-tuning"), settings["mixture_items"]
    evidence.units("problem", [f"{name}/{i}" for name in OPERATIONS for i in range(count)], asked=COUNT * count)
    joined = {"both": ("task", "chat"), "tasks": ("task", "two-step")}
    for metric in (*TESTS, *joined):
        parts = joined.get(metric, (metric,))
        evidence.metric(metric, units="problem", higher_is_better=True, floor=0.0)
        values = {
            (arm, result["seed"]): np.mean([scores[part] for part in parts], axis=0).tolist()
            for result in results
            for arm, scores in result["scores"].items()
        }
        for (arm, seed), right in values.items():
            evidence.add(metric, arm=arm, seed=seed, values=right)
        best = max(SINGLE, key=lambda arm: np.mean([values[arm, r["seed"]] for r in results]))
        for result in results:
            evidence.add(metric, arm="best single", seed=result["seed"], values=values[best, result["seed"]])
    return evidence.as_dict()
