"""Chain of thought on a task that needs one (section 6.3): the parity of up to sixteen bits.

Two styles with the same shape, sequence length and steps: the answer alone after as much filler as a scratchpad takes,
or a scratchpad of running parities, which the model writes itself when it is tested. The answer alone is also given
several times the steps, and each style its own learning rate: a style must not fail for want of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib.evidence import Evidence
from mmlib.survey_llm import training
from mmlib.survey_llm.transformer import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from mmlib.survey_llm.transformer import Decoder

SLOTS = 16  # bits of the longest problem
BLANK, EQUALS, FILLER = 2, 3, 4
BITS = (4, 8, 12, 16)
STYLES = ("direct", "scratchpad")
RATES = {"direct": "direct_learning_rate", "scratchpad": "learning_rate"}
VOTES = 15
COIN = "coin"


def problems(count: int, bits: int | None, style: str, seed: int) -> tuple[Tensor, Tensor]:
    """(R, 2·SLOTS) tokens: blanks and bits, `=`, then SLOTS - 1 of filler or running parities; labels after `=`.

    Args:
        bits: of every problem; None draws 1 … SLOTS for each.
    """
    import torch

    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, SLOTS + 1, count) if bits is None else np.full(count, bits)
    given = rng.integers(2, size=(count, SLOTS))
    given[np.arange(SLOTS) < SLOTS - lengths[:, None]] = BLANK
    running = np.where(given == BLANK, 0, given).cumsum(1) % 2
    work = running if style == "scratchpad" else np.full_like(running, FILLER)
    tokens = np.concatenate([given, np.full((count, 1), EQUALS), work[:, :-1]], 1)
    labels = np.full_like(tokens, IGNORED)
    labels[:, SLOTS:] = running if style == "scratchpad" else IGNORED
    labels[:, -1] = running[:, -1]
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def write(model: Decoder, tokens: Tensor, style: str, temperature: float = 0.0, seed: int = 0) -> np.ndarray:
    """What a model says after `=`: (R, 1) in direct style, (R, SLOTS) with its scratchpad; greedy at temperature 0."""
    import torch

    draw = torch.Generator().manual_seed(seed) if temperature else None
    places = range(SLOTS + 1 if style == "scratchpad" else 2 * SLOTS, 2 * SLOTS + 1)
    said = training.write(model, tokens, places, draw, temperature or 1.0, among=lambda at: (0, 2))
    return said[:, places.start :].numpy()


def step_accuracy(model: Decoder, tokens: Tensor, labels: Tensor, bits: int) -> float:
    """Share of the last `bits` steps that are right when the steps before them are given."""
    import torch

    with torch.inference_mode():
        said = model(tokens)["logits"][:, -bits:, :2].argmax(-1)
    return (said == labels[:, -bits:]).float().mean().item()


def confidence(model: Decoder, tokens: Tensor, labels: Tensor) -> list[float]:
    """Probability of the right answer to each problem when the work before it, if any, is given."""
    import torch

    with torch.inference_mode():
        chances = model(tokens)["logits"][:, -1, :2].softmax(-1)  # (R, 2)
    return [round(float(v), 5) for v in chances.gather(1, labels[:, -1:])[:, 0]]


def measure(model: Decoder, style: str, count: int, votes_seed: int | None) -> dict[str, Any]:
    """Per number of bits: right answers per problem; for scratchpads whole chains right, and single-step accuracy.

    `confidence` is that of the longest problems.

    `votes_seed` adds VOTES samples at temperature 1 for the longest problems, singly and by majority
    (self-consistency, Wang et al. 2022).
    """
    found: dict[str, Any] = {"right": {}, "chain": {}, "step": {}}
    for bits in BITS:
        tokens, labels = problems(count, bits, style, seed=10_000 + bits)
        said = write(model, tokens, style)
        found["right"][str(bits)] = (said[:, -1] == labels[:, -1].numpy()).astype(float).tolist()
        if style == "scratchpad":
            found["chain"][str(bits)] = float((said == labels[:, -SLOTS:].numpy())[:, -bits:].all(1).mean())
            found["step"][str(bits)] = round(step_accuracy(model, tokens, labels, bits), 6)
    found["confidence"] = confidence(model, tokens, labels)  # of the longest problems
    if votes_seed is not None:  # tokens and labels are those of the longest problems
        many = write(model, tokens.repeat(VOTES, 1), style, temperature=1.0, seed=votes_seed)[:, -1]
        right = (many.reshape(VOTES, -1) == labels[:, -1].numpy()).mean(0)
        found |= {"single": right.round(5).tolist(), "vote": (right > 0.5).astype(float).tolist()}
    return found


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one model."""
    import torch

    from mmlib.survey_llm.transformer import Decoder, Shape

    torch.set_num_threads(1)
    settings, seed, style = shard["settings"], shard["seed"], shard["style"]
    shape = Shape(FILLER + 1, settings["width"], 2, head=8, positions="learned", longest=2 * SLOTS)
    model, batch = Decoder(shape, seed), settings["batch"]
    data = problems(shard["steps"] * batch, None, style, seed=seed + 1)
    training.train(model, *data, batch=batch, learning_rate=settings[RATES[style]], seed=seed)
    measured = measure(model, style, settings["items"], seed if shard["votes"] else None)
    return {"style": style, "steps": shard["steps"], "seed": seed, **measured}


def shards(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Scratchpads after every number of steps and as the vote needs; the direct style after the most, and longer."""
    plans = [("scratchpad", steps, False) for steps in settings["steps"]]
    plans += [("scratchpad", settings["vote_steps"], True)]
    plans += [("direct", steps, False) for steps in (settings["steps"][-1], settings["longer_steps"])]
    return [
        {"name": f"{style}/{steps}{'/votes' * votes}/seed{seed}", "style": style, "steps": steps, "votes": votes,
         "seed": seed, "settings": settings}
        for style, steps, votes in plans
        for seed in settings["seeds"]
    ]  # fmt: skip


def arm_name(style: str, steps: int, settings: dict[str, Any]) -> str:
    """The style alone for the most steps of a scratchpad; `longer`, or the number of a shorter training from below."""
    if steps == settings["steps"][-1]:
        return style
    return f"{style}, longer" if style == "direct" else f"{style}, shorter {settings['steps'].index(steps) + 1}"


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Right or wrong per problem and number of bits; votes; whole chains against single-step accuracy to the power."""
    evidence, count = Evidence("survey_llm", "survey_llm-parity"), settings["items"]
    evidence.units("problem", [f"parity/{i}" for i in range(count)], asked=count)
    for name in (*(f"bits{bits}" for bits in BITS), "sampled"):
        evidence.metric(name, units="problem", higher_is_better=True, floor=0.5)
        evidence.add(name, arm=COIN, seed=None, values=[0.5] * count)
    # Not judged: it tells models apart that give the same digit to every problem, which look like copies of one run.
    evidence.metric("confidence", units="problem", higher_is_better=True, floor=None)
    for result in (r for r in results if "vote" in r):
        sampled = {"single": result["single"], "vote": result["vote"], "greedy": result["right"][str(BITS[-1])]}
        for arm, values in sampled.items():
            evidence.add("sampled", arm=arm, seed=result["seed"], values=values)
    for result in without_votes(results):
        arm, seed = arm_name(result["style"], result["steps"], settings), result["seed"]
        for bits, values in result["right"].items():
            evidence.add(f"bits{bits}", arm=arm, seed=seed, values=values)
        evidence.add("confidence", arm=arm, seed=seed, values=result["confidence"])
    _chains(evidence, [r for r in without_votes(results) if r["style"] == "scratchpad"], settings)
    return evidence.as_dict()


def without_votes(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Models of the comparison; those that vote were stopped in between on purpose."""
    return [result for result in results if "vote" not in result]


def _chains(evidence: Evidence, results: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    points = [f"{steps} steps/{bits} bits" for steps in settings["steps"] for bits in BITS]
    evidence.units("point", points, asked=len(points))
    evidence.metric("chain", units="point", higher_is_better=True, floor=None)
    for seed in settings["seeds"]:
        mine = sorted((r for r in results if r["seed"] == seed), key=lambda r: r["steps"])
        evidence.add("chain", arm="measured", seed=seed, values=[r["chain"][str(b)] for r in mine for b in BITS])
        evidence.add("chain", arm="power", seed=seed, values=[r["step"][str(b)] ** b for r in mine for b in BITS])
