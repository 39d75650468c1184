"""Preference tuning of a real model (section 5.2): SmolLM2 comes to prefer short words, at what distance from itself?

SmolLM2 continues beginnings of documents; of several continuations the one with the larger share of short words is
preferred to the one with the smallest. DPO and tuning on the preferred ones (SFT) train the same LoRA for the same
steps on the same pairs; the reference is the frozen model. Best of N samples is compared at the same divergence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import store, text
from mmlib.evidence import Evidence
from mmlib.survey_llm import preferences
from mmlib.survey_llm.smol import Rule, continue_text, opened

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel

PROMPT, NEW = 12, 12  # tokens given, and continued
SHORT = 4  # letters of a short word
RANK, LAYERS = 8, 10  # of LoRA; the last blocks, which alone are tuned
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DRAWS, RIVALS = 16, 4  # the reference's continuations of a test prompt: to choose from, and to be compared with
MEASURED = 2  # of a prompt's RIVALS continuations by a tuned model, for its divergence: two passes over every token
ARMS = {"SFT": ("sft", 0.0), "DPO": ("dpo", 0.1)}  # loss and beta
REFERENCE, MATCHED = "reference", "best of N at DPO's divergence"


def reward(words: str) -> float:
    """Share of words of at most SHORT letters; 0 where there are none."""
    lengths = [len(word) for word in re.findall(r"[A-Za-z]+", words)]
    return float(np.mean([length <= SHORT for length in lengths])) if lengths else 0.0


def rewards(tokenizer: Any, rows: Tensor) -> np.ndarray:
    """(R, n) of continuations in rows (R, n, PROMPT + NEW)."""
    texts = tokenizer.batch_decode(rows[..., PROMPT:].flatten(0, 1))
    return np.array([reward(words) for words in texts]).reshape(rows.shape[:2])


def sample(model: PreTrainedModel, prompts: Tensor, draws: int, seed: int) -> Tensor:
    """(R, draws, PROMPT + NEW) rows, drawn from the whole distribution."""
    import torch

    tokens, _ = continue_text(model, prompts, NEW, Rule(), seed, draws)
    return torch.cat([prompts.repeat_interleave(draws, 0), tokens], 1).view(len(prompts), draws, -1).clone()


def step_logprobs(model: nn.Module, rows: Tensor) -> Tensor:
    """(R, NEW, V) log-probabilities of every token at each place of the continuation."""
    return model(rows[:, :-1], logits_to_keep=NEW).logits.log_softmax(-1)


def logprob(model: nn.Module, rows: Tensor) -> Tensor:
    """(R,) log-probability of the continuation given the prompt, in nats."""
    return step_logprobs(model, rows).gather(-1, rows[:, -NEW:, None])[..., 0].sum(-1)


def with_adapter(model: PreTrainedModel, seed: int) -> nn.Module:
    """The model with a LoRA that changes nothing yet on its last LAYERS blocks; all else is frozen."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    blocks = model.config.num_hidden_layers
    last = list(range(max(0, blocks - LAYERS), blocks))
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LINEARS, layers_to_transform=last)
    return get_peft_model(model, config)


def prompts_of(tokenizer: Any, root: Path, part: str, count: int, seed: int) -> Tensor:
    """(count, PROMPT) beginnings of documents."""
    return text.windows(tokenizer, text.documents(root, part), count, PROMPT, seed=seed)


def training_pairs(model: PreTrainedModel, tokenizer: Any, root: Path, settings: dict[str, Any], seed: int) -> Tensor:
    """(R, 2, T) best and worst of RIVALS continuations per prompt; ties teach nothing and are left out."""
    import torch

    prompts = prompts_of(tokenizer, root, "calibration", settings["pairs"], seed + 1)
    rows = sample(model, prompts, RIVALS, seed)
    found = rewards(tokenizer, rows)
    index = np.stack([found.argmax(1), found.argmin(1)], 1)
    pairs = torch.stack([row[pick] for row, pick in zip(rows, index, strict=True)])
    return pairs[torch.from_numpy(found.max(1) > found.min(1))]


def tuned(
    model: PreTrainedModel, arm: str, pairs: Tensor, reference: Tensor, settings: dict[str, Any], rate: float, seed: int
) -> nn.Module:
    """An adapter on `model` after `steps` on pairs; take it off again with `unload`."""
    kind, beta = ARMS[arm]
    adapted = with_adapter(model, seed)
    module = preferences.learner(adapted, kind, beta, logprob)
    size = {"steps": settings["steps"], "batch": settings["batch"]}
    preferences.train(module, pairs, reference, **size, learning_rate=rate, seed=seed)
    return adapted.eval()


def reference_logprobs(model: PreTrainedModel, pairs: Tensor) -> Tensor:
    """(R, 2) nats of pairs under the frozen model."""
    import torch

    with torch.inference_mode():
        return logprob(model, pairs.flatten(0, 1)).view(-1, 2).clone()


def divergence(adapted: nn.Module, rows: Tensor) -> np.ndarray:
    """(R,) KL from the model without its adapter, in nats along the own continuations: exact at each token, summed."""
    import torch

    with torch.inference_mode():
        ours = step_logprobs(adapted, rows)
        with adapted.disable_adapter():
            theirs = step_logprobs(adapted, rows)
        return (ours.exp() * (ours - theirs)).sum((1, 2)).numpy()


def best_at(found: np.ndarray, rivals: np.ndarray, nats: float) -> dict[str, list[float]]:
    """Reward and wins (R,) of best-of-N whose divergence is `nats`, between whole numbers N by straight lines.

    Expectations over all choices of N of a prompt's draws `found` (R, DRAWS). Its bound on the divergence stands for
    the divergence, so that best-of-N is, if anything, compared at too small an N. N ends at DRAWS.
    """
    from scipy.special import comb

    ordered = np.sort(found, 1)
    won = np.stack([preferences.wins(ordered[:, i : i + 1], rivals) for i in range(DRAWS)], 1)
    counts = np.arange(1, DRAWS + 1)
    chances = np.array([comb(counts - 1, n - 1) / comb(DRAWS, n) for n in counts])  # (N, place of the best)
    bounds = np.array([preferences.best_of_divergence(n) for n in counts])

    def at(values: np.ndarray) -> list[float]:
        return [round(float(np.interp(nats, bounds, chances @ row)), 5) for row in values]

    return {"reward": at(ordered), "win": at(won)}


def measure(adapted: nn.Module, tokenizer: Any, prompts: Tensor, rivals: np.ndarray, seed: int) -> dict[str, list]:
    """Per prompt: reward, wins over the reference's draws, KL; and one continuation to look at."""
    rows = sample(adapted, prompts, RIVALS, seed)
    found = rewards(tokenizer, rows)
    nats = divergence(adapted, rows[:, :MEASURED].flatten(0, 1)).reshape(len(rows), -1).mean(1)
    values = {"reward": found.mean(1), "win": preferences.wins(found, rivals), "kl": nats}
    shown = {"text": tokenizer.decode(rows[0, 0, PROMPT:])}
    return {name: value.astype(float).round(5).tolist() for name, value in values.items()} | shown


def chosen(tried: dict[float, dict[str, list]]) -> float:
    """The rate with the most wins among those that diverge by no more than the best of DRAWS may; else the nearest.

    A loss of its own would not do: DPO's falls with every nat of divergence, and the model falls apart.
    """
    nats = {rate: float(np.mean(found["kl"])) for rate, found in tried.items()}
    near = [rate for rate in tried if nats[rate] <= preferences.best_of_divergence(DRAWS)]
    return max(near, key=lambda rate: np.mean(tried[rate]["win"])) if near else min(nats, key=nats.get)


def search(shard: dict[str, Any]) -> dict[str, Any]:
    """One arm's rate, `chosen` on prompts and a seed that no result uses, and what was tried."""
    import torch

    torch.set_num_threads(1)
    root, settings, seed, arm = store.project_root(), shard["settings"], shard["seed"], shard["arm"]
    model, tokenizer = opened(root)
    pairs = training_pairs(model, tokenizer, root, settings, seed)
    reference, tried = reference_logprobs(model, pairs), {}
    prompts = prompts_of(tokenizer, root, "calibration", settings["prompts"], seed + 2)
    rivals = rewards(tokenizer, sample(model, prompts, RIVALS, seed + 2))
    for rate in settings["learning_rates"]:
        adapted = tuned(model, arm, pairs, reference, settings, rate, seed)
        tried[rate] = measure(adapted, tokenizer, prompts, rivals, seed + 3)
        model = adapted.unload()
    seen = {f"{rate:g}": [round(float(np.mean(found[n])), 4) for n in ("win", "kl")] for rate, found in tried.items()}
    return {"arm": arm, "rate": chosen(tried), "tried": seen}


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed: both ways of tuning on the same pairs, and best of N, on the same test prompts."""
    import torch

    torch.set_num_threads(1)
    root, settings, seed = store.project_root(), shard["settings"], shard["seed"]
    model, tokenizer = opened(root)
    pairs = training_pairs(model, tokenizer, root, settings, seed)
    reference = reference_logprobs(model, pairs)
    prompts = prompts_of(tokenizer, root, "test", settings["prompts"], 0)
    pool = rewards(tokenizer, sample(model, prompts, DRAWS + RIVALS, seed + 2))
    draws, rivals = pool[:, :DRAWS], pool[:, DRAWS:]
    scores = {REFERENCE: {"reward": draws.mean(1).round(5).tolist(), "win": [0.5] * len(draws)}}
    for arm in ARMS:
        adapted = tuned(model, arm, pairs, reference, settings, shard["rates"][arm], seed)
        scores[arm] = measure(adapted, tokenizer, prompts, rivals, seed + 3)
        model = adapted.unload()
    for count in preferences.BEST_OF:
        scores[f"best of {count}"] = best_at(draws, rivals, preferences.best_of_divergence(count))
    scores[MATCHED] = best_at(draws, rivals, float(np.mean(scores["DPO"]["kl"])))
    return {"kind": "steering", "seed": seed, "pairs": len(pairs), "scores": scores}


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Per prompt: reward, wins over the reference, KL."""
    evidence, count = Evidence("survey_llm", "survey_llm-smol"), settings["prompts"]
    evidence.units("prompt", [f"prompt/{i}" for i in range(count)], asked=count)
    for metric in ("reward", "win", "kl"):
        floor = 0.5 if metric == "win" else None
        evidence.metric(metric, units="prompt", higher_is_better=metric != "kl", floor=floor)
    for result in results:
        for arm, scores in result["scores"].items():
            for metric in ("reward", "win", "kl"):
                known = arm == REFERENCE and metric == "win"  # a coin, not a measurement
                if metric in scores and (not known or result is results[0]):
                    evidence.add(metric, arm=arm, seed=None if known else result["seed"], values=scores[metric])
    return evidence.as_dict()
