"""What comes suddenly, and in which metric (sections 2.1 and 6.2.3): recall from the context, addition by width.

Recall: a sequence shows pairs of a key and a value that were drawn for it alone, and asks for each key again. Weights
cannot know the answer; two layers of attention can find it (one head looks a token back, another for the same key,
Olsson et al. 2022), one layer cannot. Addition: models of growing width add numbers of three digits, scored by
exact match, by digit and in nats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib.evidence import Evidence
from mmlib.survey_llm.training import train
from mmlib.survey_llm.transformer import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from mmlib.survey_llm.transformer import Decoder, Shape

PAIRS, KEYS = 8, 24  # shown in a sequence; to draw keys from, and as many values
DIGITS, PLUS, EQUALS = 3, 10, 11
ANSWER = DIGITS + 1  # digits of a sum
BOUND, SHARE = "30 %", 0.3  # who reads values without their keys guesses one of eight; of those not asked yet, more
RATE, MUON = 0.003, 0.02  # for all models; AdamW for embeddings, Muon for matrices
INTERIOR = (0.1, 0.9)  # shares of whole answers between which a power of single ones could be wrong


# ---- tasks -----------------------------------------------------------------------------------------------------------


def recall(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(R, 4·PAIRS) tokens, pairs and then the same pairs in another order; labels on the values asked for."""
    import torch

    rng = np.random.default_rng(seed)

    def drawn(size: int) -> np.ndarray:
        return rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)[:, :PAIRS]

    keys, values, order = drawn(KEYS), KEYS + drawn(KEYS), drawn(PAIRS)
    again = [np.take_along_axis(part, order, 1) for part in (keys, values)]
    tokens = np.concatenate([np.stack(pair, 2).reshape(count, -1) for pair in ((keys, values), again)], 1)
    labels = np.full_like(tokens, IGNORED)
    labels[:, 2 * PAIRS :: 2] = again[1]
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def addition(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(R, 2·DIGITS + 2 + DIGITS) tokens `a + b = sum`, lowest digit first; labels on the digits of the sum."""
    import torch

    a, b = np.random.default_rng(seed).integers(10**DIGITS, size=(2, count))

    def digits(x: np.ndarray, places: int) -> np.ndarray:
        return x[:, None] // 10 ** np.arange(places) % 10

    def sign(token: int) -> np.ndarray:
        return np.full((count, 1), token)

    parts = [digits(a, DIGITS), sign(PLUS), digits(b, DIGITS), sign(EQUALS), digits(a + b, ANSWER)]
    tokens = torch.from_numpy(np.concatenate(parts, 1))
    labels = tokens[:, 1:].clone()
    labels[:, :-ANSWER] = IGNORED
    return tokens[:, :-1], labels


TASKS: dict[str, Callable[[int, int], tuple[Tensor, Tensor]]] = {"recall": recall, "addition": addition}
TEST_SEED = 1_000_000


def shape(task: str, width: int, layers: int) -> Shape:
    """Attention alone for recall; blocks with a feed-forward part for addition."""
    from mmlib.survey_llm.transformer import Shape

    vocabulary, head = (2 * KEYS, 16) if task == "recall" else (EQUALS + 1, 8)
    return Shape(vocabulary, width, layers, head=head, feed_forward=task == "addition")


# ---- measures --------------------------------------------------------------------------------------------------------


def measure(model: Decoder, tokens: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """(R,) `exact` (every answer of a row right, which is what greedy writing gives), `part`, `nats` per answer."""
    import torch

    asked = labels != IGNORED  # the same number in every row
    with torch.inference_mode():
        logits = model(tokens)["logits"][asked]
        nats = torch.nn.functional.cross_entropy(logits, labels[asked], reduction="none").view(len(tokens), -1)
    right = (logits.argmax(-1) == labels[asked]).float().view(len(tokens), -1)
    return {"exact": right.prod(1).numpy(), "part": right.mean(1).numpy(), "nats": nats.mean(1).numpy()}


def attention(model: Decoder, tokens: Tensor) -> list[Tensor]:
    """(B, H, T, T) weights of every block of a model with rotary positions."""
    import torch

    from mmlib.survey_llm.transformer import rotate, turns

    x, length = model.embedding(tokens), tokens.shape[1]
    rotation = turns(0, length, model.shape.head)
    future, found = torch.ones(length, length).triu(1).bool(), []
    for block in model.blocks:
        q, k = block.qkv(block.before_attention(x)).unflatten(-1, (3, -1, block.shape.head)).permute(2, 0, 3, 1, 4)[:2]
        scores = rotate(q, *rotation) @ rotate(k, *rotation).transpose(-1, -2) / block.shape.head**0.5
        found.append(scores.masked_fill(future, -torch.inf).softmax(-1))
        x = block(x, None, rotation, None)
    return found


def induction_score(model: Decoder, tokens: Tensor) -> float:
    """Attention of the best head from a key asked for to the value after the same key shown: 1 if it looks only there.

    Chance is one over the tokens seen so far.
    """
    import torch

    half = 2 * PAIRS
    same = tokens[:, None, half::2] == tokens[:, :half:2, None]  # (B, shown, asked)
    at = 2 * same.int().argmax(1) + 1  # (B, asked) places of the values
    with torch.inference_mode():
        weights = [part[:, :, half::2].gather(-1, at[:, None, :, None].expand(-1, part.shape[1], -1, -1))
                   for part in attention(model, tokens)]  # fmt: skip
    return max(float(part.mean((0, 2, 3)).max()) for part in weights)


# ---- stage -----------------------------------------------------------------------------------------------------------


def watched(model: Decoder, marks: list[int], look: Callable[[], dict[str, float]]) -> nn.Module:
    """A module that trains as `model` does and looks at it before the steps `marks`; what it saw is in `curve`."""
    from torch import nn

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.step, self.curve = model, 0, []

        def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            if self.step in marks:
                self.curve.append({"step": self.step, **look()})
            self.step += 1
            return self.model(input_ids, labels)

    return Watched()


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Train one model on one task: scores per test row, and for recall its curve over the steps."""
    import torch

    from mmlib.survey_llm.transformer import Decoder

    torch.set_num_threads(1)
    settings, seed, task = shard["settings"], shard["seed"], shard["task"]
    steps, batch = settings[f"{task}_steps"], settings["batch"]
    model = Decoder(shape(task, shard["width"], shard["layers"]), seed)
    test = TASKS[task](settings["items"], TEST_SEED)

    def look() -> dict[str, float]:
        found = {name: round(float(values.mean()), 5) for name, values in measure(model, *test).items()}
        return found | {"induction": round(induction_score(model, test[0]), 5)}

    marks = list(range(0, steps, settings["every"])) if task == "recall" else []
    module = watched(model, marks, look)
    train(module, *TASKS[task](steps * batch, seed + 1), batch=batch, learning_rate=RATE, seed=seed,
          muon_learning_rate=MUON)  # fmt: skip
    curve = [*module.curve, {"step": steps, **look()}] if marks else []
    scores = {name: [round(float(v), 5) for v in values] for name, values in measure(model, *test).items()}
    return {**{name: shard[name] for name in ("task", "arm", "seed", "width", "layers")}, "scores": scores,
            "curve": curve, "weights": model.shape.block_parameters}  # fmt: skip


def arms(settings: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """(task, arm, width, layers): for recall two layers, one of the same width, one with as many weights or more."""
    width = settings["recall_width"]
    wider = 16 * -(-int(2**0.5 * width) // 16)  # heads are 16 wide
    found = [("recall", "2 layers", width, 2), ("recall", "1 layer", width, 1), ("recall", "1 layer, wider", wider, 1)]
    return found + [("addition", f"width {w}", w, 2) for w in settings["addition_widths"]]


def shards(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard per arm and seed."""
    return [
        {"name": f"{task}/{arm}/seed{seed}", "task": task, "arm": arm, "width": width, "layers": layers, "seed": seed,
         "settings": settings}
        for task, arm, width, layers in arms(settings)
        for seed in settings["seeds"]
    ]  # fmt: skip


# ---- evidence --------------------------------------------------------------------------------------------------------


def chains(results: list[dict[str, Any]], parity: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(point, share of whole answers right, single ones' share to the power) of sums and of parity's scratchpads."""
    sums = [(f"addition, {r['arm']}, seed {r['seed']}", np.mean(r["scores"]["exact"]),
             np.mean(r["scores"]["part"]) ** ANSWER) for r in results if r["task"] == "addition"]  # fmt: skip
    steps = [(f"parity, {r['steps']} steps, {bits} bits, seed {r['seed']}", r["chain"][bits], share ** int(bits))
             for r in parity if r["style"] == "scratchpad" for bits, share in r["step"].items()]  # fmt: skip
    return [(name, float(whole), float(power)) for name, whole, power in (*sums, *steps)]


def interior(points: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Points where a power could be wrong: not nothing, not everything is right; all, if a tiny run has hardly any."""
    found = [point for point in points if INTERIOR[0] <= point[1] <= INTERIOR[1]]
    return found if len(found) > 1 else points


def largest_step(values: list[float]) -> float:
    """Share of all changes in the direction of the whole one that falls between two neighbours: 1 is a jump, 1/(n - 1)
    a slope.
    """
    changes = np.diff(values)
    forward = (changes * np.sign(changes.sum())).clip(min=0)
    return float(forward.max() / max(forward.sum(), 1e-9))


def as_evidence(
    results: list[dict[str, Any]], parity: list[dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Any]:
    """Scores per row, arm and seed; how suddenly addition comes by each metric; powers at interior points."""
    evidence, count = Evidence("survey_llm", "survey_llm-emergence"), settings["items"]
    evidence.units("row", [f"row/{i}" for i in range(count)], asked=count)
    for task in TASKS:
        for name in ("exact", "part", "nats"):
            floor = 0.0 if name == "exact" else None
            evidence.metric(f"{task}_{name}", units="row", higher_is_better=name != "nats", floor=floor)
    evidence.add("recall_part", arm=BOUND, seed=None, values=[SHARE] * count)
    for result in results:
        for name, values in result["scores"].items():
            evidence.add(f"{result['task']}_{name}", arm=result["arm"], seed=result["seed"], values=values)
    _jumps(evidence, results, settings["seeds"])
    _powers(evidence, chains(results, parity))
    return evidence.as_dict()


def _jumps(evidence: Evidence, results: list[dict[str, Any]], seeds: list[int]) -> None:
    """Per seed: the largest share of the gain over widths, and of the gain over checkpoints of recall."""
    for metric in ("jump", "induction"):
        evidence.units(metric, [f"{metric}/all"], asked=1)
        evidence.metric(metric, units=metric, higher_is_better=True, floor=None)
    for seed in seeds:
        sums = [r["scores"] for r in results if r["task"] == "addition" and r["seed"] == seed]
        for name in ("exact", "part", "nats"):
            evidence.add("jump", arm=name, seed=seed, values=[largest_step([np.mean(s[name]) for s in sums])])
        curve = next(r["curve"] for r in results if r["arm"] == "2 layers" and r["seed"] == seed)
        for arm, place in (("untrained", 0), ("trained", -1)):
            evidence.add("induction", arm=arm, seed=seed, values=[curve[place]["induction"]])


def _powers(evidence: Evidence, points: list[tuple[str, float, float]]) -> None:
    inside = interior(points)
    evidence.units("point", [f"point/{name}" for name, _, _ in inside], asked=len(inside))
    for metric in ("whole", "distance"):
        evidence.metric(metric, units="point", higher_is_better=metric == "whole", floor=None)
    whole, power = (np.array([point[i] for point in inside]) for i in (1, 2))
    for arm, values in (("measured", whole), ("power", power)):
        evidence.add("whole", arm=arm, seed=None, values=values.round(6).tolist())
    evidence.add("distance", arm="of the power", seed=None, values=abs(whole - power).round(6).tolist())
    evidence.add("distance", arm="5 points", seed=None, values=[0.05] * len(inside))
