"""Preference tuning (section 5.2) on a reward that is known: the share of vowels in what a byte model writes.

A base model continues prompts; of two continuations the one with more vowels is preferred. From the same pairs learn:
tuning on the preferred ones (SFT), DPO (Rafailov et al. 2023, eq. 7), IPO (Azar et al. 2024, eq. 17), and a reward
model (Bradley-Terry) by which the best of N samples is chosen. All continuations have the same length. The losses are
written here, a line each and tested against their formulas: trl would bring a trainer of its own beside the shared one.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import store
from mmlib.evidence import Evidence
from mmlib.survey_llm import training

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from mmlib.survey_llm.transformer import Decoder

PROMPT, NEW = 16, 24  # bytes
VOWELS = np.isin(np.arange(256), list(b"aeiouAEIOU"))
BEST_OF = (2, 4, 16)
BASES = ("reference", "weak reference")
DRAWS, RIVALS = 16, 4  # the reference's continuations of a test prompt: to choose from, and to be compared with


def reward(rows: np.ndarray) -> np.ndarray:
    """(…,) share of vowels among the NEW last bytes of rows (…, PROMPT + NEW)."""
    return VOWELS[rows[..., -NEW:]].mean(-1)


def step_logprobs(model: nn.Module, rows: Tensor) -> Tensor:
    """(R, NEW, V) log-probabilities of every byte at each place of the continuation."""
    return model(rows[:, :-1])["logits"][:, -NEW:].log_softmax(-1)


def logprob(model: nn.Module, rows: Tensor) -> Tensor:
    """(R,) log-probability of the continuation given the prompt, in nats."""
    return step_logprobs(model, rows).gather(-1, rows[:, -NEW:, None])[..., 0].sum(-1)


def score(model: nn.Module, rows: Tensor) -> Tensor:
    """(R,) what a reward model says: the first output of its head at the last byte."""
    return model(rows)["logits"][:, -1, 0]


def loss(kind: str, beta: float, policy: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]) -> Tensor:
    """Mean loss of pairs; `policy` and `reference` are log-probabilities (R,) of (preferred, other) continuations.

    dpo: -log sigmoid(beta·h), ipo: (h - 1/(2·beta))², sft: -log-probability of the preferred byte, reward: -log
    sigmoid(difference of scores), with h the preferred one's gain in log-probability over the reference less the
    other's.
    """
    from torch.nn.functional import logsigmoid

    preferred, other = policy
    margin = preferred - other - (reference[0] - reference[1])
    if kind == "sft":
        return -preferred.mean() / NEW
    if kind == "ipo":
        return ((margin - 1 / (2 * beta)) ** 2).mean()
    return -logsigmoid(beta * margin if kind == "dpo" else preferred - other).mean()


def learner(
    model: nn.Module, kind: str, beta: float, logprob: Callable[[nn.Module, Tensor], Tensor] = logprob
) -> nn.Module:
    """A module whose forward gives the loss of pairs, for Trainer; `logprob` is that of a row's continuation."""
    from torch import nn

    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, rows: Tensor, reference: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            """rows (B, 2, T) and reference (B, 2): preferred first."""
            found = (score if kind == "reward" else logprob)(self.model, rows.flatten(0, 1)).view(-1, 2)
            return {"loss": loss(kind, beta, tuple(found.T), tuple(reference.T))}

    return Learner()


def learn(
    base: Decoder, kind: str, beta: float, pairs: Tensor, settings: dict[str, Any], rate: float, seed: int
) -> Decoder:
    """A copy of `base`, its own reference, after tuning on pairs (R, 2, T)."""
    import torch

    with torch.inference_mode():
        reference = logprob(base, pairs.flatten(0, 1)).view(-1, 2)
    model = copy.deepcopy(base)
    size = {"steps": settings["preference_steps"], "batch": settings["preference_batch"]}
    train(learner(model, kind, beta), pairs, reference.clone(), **size, learning_rate=rate, seed=seed)
    return model.eval()


def train(
    module: nn.Module, pairs: Tensor, reference: Tensor, *, steps: int, batch: int, learning_rate: float, seed: int
) -> None:
    """`steps` of a learner on pairs (R, 2, T) in an order drawn from the seed, with the reference's (R, 2) nats."""
    from mmlib.models.fit import fit

    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(pairs)) for _ in range(-(-steps * batch // len(pairs)))])

    def collate(items: list[int]) -> dict[str, Tensor]:
        chosen = order[items]
        return {"rows": pairs[chosen], "reference": reference[chosen]}

    fit(module, collate, name="pairs", steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)


def sample(model: Decoder, prompts: Tensor, draws: int, seed: int) -> Tensor:
    """(R, draws, PROMPT + NEW) rows, drawn from the whole distribution."""
    import torch

    draw, rows = torch.Generator().manual_seed(seed), prompts.repeat_interleave(draws, 0)
    return training.write(model, rows, range(PROMPT, PROMPT + NEW), draw).view(len(prompts), draws, -1)


def ranked(rows: Tensor) -> Tensor:
    """(R, 2, T): of each prompt's draws (R, n, T) the one with the highest reward and the one with the lowest."""
    import torch

    rewards = reward(rows.numpy())
    index = np.stack([rewards.argmax(1), rewards.argmin(1)], 1)
    return torch.stack([row[pick] for row, pick in zip(rows, index, strict=True)])


def divergence(model: Decoder, base: Decoder, rows: Tensor) -> np.ndarray:
    """(R,) KL of the model from the base in nats along the model's own continuations: exact at each byte, summed."""
    import torch

    with torch.inference_mode():
        ours, theirs = step_logprobs(model, rows), step_logprobs(base, rows)
        return (ours.exp() * (ours - theirs)).sum((1, 2)).numpy()


def changes(model: Decoder, base: Decoder, pairs: Tensor) -> np.ndarray:
    """(R, 2) nats that the model adds to the log-probabilities of pairs (R, 2, T)."""
    import torch

    with torch.inference_mode():
        rows = pairs.flatten(0, 1)
        return (logprob(model, rows) - logprob(base, rows)).view(-1, 2).numpy()


def wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(R,) how often a draw of ours (R, m) has the higher reward than one of theirs (R, n); ties count half."""
    gap = ours[:, :, None] - theirs[:, None, :]
    return ((gap > 0) + 0.5 * (gap == 0)).mean((1, 2))


def best_of(rewards: np.ndarray, judged: np.ndarray, count: int) -> np.ndarray:
    """(R, DRAWS/count) rewards of the draws that a judge finds best in each group of `count`."""
    groups = judged.reshape(len(judged), -1, count)
    at = groups.argmax(2)[..., None]
    return np.take_along_axis(rewards.reshape(groups.shape), at, 2)[..., 0]


def best_of_divergence(count: int) -> float:
    """Upper bound on the KL of best-of-N from its base: ln N - (N - 1)/N; exact if no two rewards tie."""
    return float(np.log(count) - (count - 1) / count)


# ---- stage -----------------------------------------------------------------------------------------------------------


def plans(settings: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Arm -> (loss, beta)."""
    dpo = {f"DPO {beta:g}": ("dpo", beta) for beta in settings["betas"]}
    return {"SFT": ("sft", 0.0), **dpo, "IPO": ("ipo", settings["beta"]), "reward model": ("reward", 0.0)}


def prepared(settings: dict[str, Any], seed: int, share: float = 1.0) -> tuple[Decoder, np.ndarray, np.ndarray]:
    """A base model trained on `share` of the bytes, with training and held-out text."""
    from mmlib.survey_llm.transformer import Decoder, Shape

    source, held = training.byte_text(store.project_root())
    base = Decoder(Shape(width=settings["preference_width"], layers=2, head=8), seed)
    training.read(base, source, int(share * settings["preference_bytes"]), batch=16, learning_rate=0.01, seed=seed)
    return base, source, held


def training_pairs(base: Decoder, source: np.ndarray, settings: dict[str, Any], seed: int) -> Tensor:
    """(R, 2, T) preferred and other of two continuations per prompt; ties teach nothing and are left out."""
    prompts = training.windows(source, settings["pairs"], PROMPT - 1, seed=seed + 2)
    pairs = ranked(sample(base, prompts, 2, seed))
    rewards = reward(pairs.numpy())
    return pairs[rewards[:, 0] > rewards[:, 1]]


def search(shard: dict[str, Any]) -> dict[str, float]:
    """Arm -> the learning rate with the lowest loss of its own on pairs that were not trained on."""
    import torch

    torch.set_num_threads(1)
    settings, seed = shard["settings"], shard["seed"]
    base, source, _ = prepared(settings, seed)
    pairs = training_pairs(base, source, settings, seed)
    known, fresh = pairs[: 3 * len(pairs) // 4], pairs[3 * len(pairs) // 4 :]
    best = {}
    for arm, (kind, beta) in plans(settings).items():
        tried = {}
        for rate in settings["preference_learning_rates"]:
            model = learner(learn(base, kind, beta, known, settings, rate, seed), kind, beta)
            with torch.inference_mode():
                tried[rate] = float(model(fresh, logprob(base, fresh.flatten(0, 1)).view(-1, 2))["loss"])
        best[arm] = min(tried, key=tried.get)
    return best


def measure(model: Decoder, base: Decoder, prompts: Tensor, theirs: Tensor, seed: int) -> dict[str, list[float]]:
    """Per prompt: reward, wins over the reference's draws `theirs` (R, DRAWS + RIVALS, T), KL from `base` (the model's
    own reference), and the change of log-probability of preferred and other among the first draws.
    """
    rows = sample(model, prompts, RIVALS, seed)
    ours, rivals = reward(rows.numpy()), reward(theirs[:, DRAWS:].numpy())
    nats = divergence(model, base, rows.flatten(0, 1)).reshape(len(rows), -1).mean(1)
    preferred, other = changes(model, base, ranked(theirs[:, :RIVALS])).T
    found = {"reward": ours.mean(1), "win": wins(ours, rivals), "kl": nats, "preferred": preferred, "other": other}
    return {name: values.astype(float).round(5).tolist() for name, values in found.items()}


def chosen(judge: Decoder | None, theirs: Tensor) -> dict[str, dict[str, list[float]]]:
    """Best of N by the reward itself or by a reward model: reward and wins per prompt."""
    import torch

    pool, rivals = theirs[:, :DRAWS], reward(theirs[:, DRAWS:].numpy())
    rewards, found = reward(pool.numpy()), {}
    with torch.inference_mode():
        judged = rewards if judge is None else score(judge, pool.flatten(0, 1)).view(rewards.shape).numpy()
    for count in BEST_OF:
        best = best_of(rewards, judged, count)
        name = f"best of {count}, {'true reward' if judge is None else 'reward model'}"
        found[name] = {"reward": best.mean(1).round(5).tolist(), "win": wins(best, rivals).round(5).tolist()}
    return found


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed: every way of tuning on the same pairs, measured on the same test prompts; `near` is DPO at the rates of
    `frontier`.
    """
    import torch

    torch.set_num_threads(1)
    settings, seed, rates = shard["settings"], shard["seed"], shard["rates"]
    base, source, held = prepared(settings, seed)
    weak, weak_arm = prepared(settings, seed, settings["weak_share"])[0], f"DPO {settings['beta']:g}"
    pairs = training_pairs(base, source, settings, seed)
    prompts = training.windows(held, settings["preference_prompts"], PROMPT - 1, seed=0)
    theirs = sample(base, prompts, DRAWS + RIVALS, seed + 1)
    scores = {BASES[0]: measure(base, base, prompts, theirs, seed), **chosen(None, theirs)}
    for arm, (kind, beta) in plans(settings).items():
        model = learn(base, kind, beta, pairs, settings, rates[arm], seed)
        scores |= chosen(model, theirs) if kind == "reward" else {arm: measure(model, base, prompts, theirs, seed)}
    near = {
        f"{rate:g}": measure(
            learn(base, "dpo", settings["beta"], pairs, settings, rate, seed), base, prompts, theirs, seed
        )
        for rate in settings["frontier_rates"]
    }
    tuned = learn(weak, "dpo", settings["beta"], pairs, settings, rates[weak_arm], seed)
    scores[BASES[1]] = measure(weak, weak, prompts, theirs, seed)
    scores[f"{weak_arm}, {BASES[1]}"] = measure(tuned, weak, prompts, theirs, seed)
    return {"seed": seed, "pairs": len(pairs), "scores": scores, "near": near}


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Per prompt: reward, wins over the reference, KL, change of log-probability of preferred and other, `margin`."""
    evidence, count = Evidence("survey_llm", "survey_llm-tuning"), settings["preference_prompts"]
    evidence.units("prompt", [f"prompt/{i}" for i in range(count)], asked=count)
    for metric in ("reward", "win", "kl", "preferred", "other", "margin"):
        floor = 0.5 if metric == "win" else None
        evidence.metric(metric, units="prompt", higher_is_better=metric != "kl", floor=floor)
    for result in results:
        for arm, scores in result["scores"].items():
            if "preferred" in scores:
                margin = np.subtract(scores["preferred"], scores["other"]).round(5).tolist()
                scores = scores | {"margin": margin}
            for metric, values in scores.items():
                # A reference does not differ from itself: known once for all seeds, not measured for each.
                known = arm in BASES and metric not in ("reward", "win")
                if not known or result is results[0]:
                    evidence.add(metric, arm=arm, seed=None if known else result["seed"], values=values)
    return evidence.as_dict()
