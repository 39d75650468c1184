"""Parameter-efficient tuning (section 5.3): a byte model of prose is adapted to code by training few weights.

Prose are the lines of packaged docstrings, code their doctest lines. All ways of tuning start from the same base, see
the same windows in the same order for the same steps, and choose their learning rate from the same candidates.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import store, text
from mmlib.evidence import Evidence
from mmlib.survey_llm.training import LENGTH, TEST_EVERY, nats, train, windows

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import LlamaForCausalLM

RANKS = (1, 2, 4, 8, 16)
METHODS = ("full", *(f"LoRA {rank}" for rank in RANKS), "adapter", "prefix", "prompt", "head")
BOTTLENECK, VIRTUAL = 8, 8  # width of an adapter; virtual tokens of prefix and prompt
SHARES = {"80 % of full": 0.8, "half of full": 0.5, "40 % of full": 0.4}
BASE_RATE = 0.005
VALIDATION, TEST = 2, 3  # seeds of windows


def domains(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """`prose` and `code` -> (training, held-out) bytes; no held-out line stands in the training part."""
    parts: dict[str, tuple[list[str], list[str]]] = {"prose": ([], []), "code": ([], [])}
    documents = [document for part in text.PARTS for document in text.documents(root, part)]
    for place, number in enumerate(np.random.default_rng(0).permutation(len(documents))):
        for line in map(str.strip, documents[number].split("\n")):
            kind = "code" if line.startswith((">>> ", "... ")) else "prose"
            if len(line) > 12:
                parts[kind][place % TEST_EVERY == 0].append(line)
    found = {}
    for kind, (known, held) in parts.items():
        seen = set(known)
        fresh = list(dict.fromkeys(line for line in held if line not in seen))
        found[kind] = tuple(np.frombuffer("\n".join(lines).encode(), np.uint8) for lines in (known, fresh))
    return found


def base_model(source: np.ndarray, settings: dict[str, Any], seed: int) -> LlamaForCausalLM:
    """A small Llama that has read prose."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    width = settings["peft_width"]
    config = LlamaConfig(vocab_size=256, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=2,
                         num_attention_heads=width // 16, max_position_embeddings=2 * LENGTH)  # fmt: skip
    model, rate = LlamaForCausalLM(config), BASE_RATE
    return fitted(model, source, settings["peft_base_steps"], settings, rate, seed)


def fitted(model: nn.Module, source: np.ndarray, steps: int, settings: dict[str, Any], rate: float, seed: int) -> Any:
    """`model`, trained in place on windows drawn from the seed."""
    rows = windows(source, steps * settings["peft_batch"], LENGTH, seed=seed + 1)
    train(model, rows, rows, batch=settings["peft_batch"], learning_rate=rate, seed=seed)  # transformers shifts labels
    return model


def equipped(base: LlamaForCausalLM, method: str, seed: int) -> nn.Module:
    """A copy of the base in which only what the method tunes has gradients."""
    import torch
    from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, PromptTuningInit, get_peft_model

    torch.manual_seed(seed)
    model = copy.deepcopy(base)
    if method == "full":
        return model
    model.requires_grad_(False)
    if method == "head":
        model.lm_head.requires_grad_(True)
    if method == "adapter":
        add_adapters(model)
    if method in ("head", "adapter"):
        return model
    task = {"task_type": "CAUSAL_LM"}
    if method == "prefix":  # the reparameterising network of Li and Liang 2021 is dropped after training
        config = PrefixTuningConfig(num_virtual_tokens=VIRTUAL, prefix_projection=True,
                                    encoder_hidden_size=model.config.hidden_size, **task)  # fmt: skip
    elif method == "prompt":  # begins as tokens of the vocabulary, the better start of Lester et al. 2021
        config = PromptTuningConfig(
            num_virtual_tokens=VIRTUAL, prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB, **task
        )
    else:
        rank = int(method.split()[1])
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", **task)
    return get_peft_model(model, config)


def add_adapters(model: LlamaForCausalLM) -> None:
    """After attention and feed-forward part, before the residual sum: h + W_up relu(W_down h) (Houlsby et al. 2019)."""
    for block in model.model.layers:
        block.self_attn.o_proj = adapter(block.self_attn.o_proj)
        block.mlp.down_proj = adapter(block.mlp.down_proj)


def adapter(inner: nn.Module) -> nn.Module:
    """The module followed by a bottleneck that starts as the identity."""
    from torch import nn

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            self.down = nn.Linear(inner.out_features, BOTTLENECK)
            self.up = nn.Linear(BOTTLENECK, inner.out_features)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

        def forward(self, x: Tensor) -> Tensor:
            h = self.inner(x)
            return h + self.up(self.down(h).relu())

    return Adapted()


def stored_weights(model: nn.Module, method: str) -> int:
    """Weights that have to be kept for the tuned task."""
    if method == "prefix":
        config = model.base_model.config
        return VIRTUAL * 2 * config.num_hidden_layers * config.hidden_size
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def losses(model: nn.Module, rows: Tensor) -> np.ndarray:
    """(R,) mean nats per byte; virtual tokens before the text do not count."""
    return nats(model, rows, LENGTH).mean(1).numpy()


def search(shard: dict[str, Any]) -> dict[str, float]:
    """Method -> the candidate with the lowest loss on validation windows of code, on a seed that no result uses."""
    import torch

    torch.set_num_threads(1)
    settings, seed = shard["settings"], shard["seed"]
    found = domains(store.project_root())
    base = base_model(found["prose"][0], settings, seed)
    (source, held), best = found["code"], {}
    rows = windows(held, settings["peft_windows"], LENGTH, seed=VALIDATION)
    for method in METHODS:
        tried = {}
        for rate in settings["peft_learning_rates"]:
            model = fitted(equipped(base, method, seed), source, settings["peft_steps"], settings, rate, seed)
            tried[rate] = losses(model, rows).mean()
        best[method] = min(tried, key=tried.get)
    return best


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One seed: loss per window of code and of prose, for the base and every method; weights that are tuned."""
    import torch

    torch.set_num_threads(1)
    settings, seed, rates = shard["settings"], shard["seed"], shard["rates"]
    found = domains(store.project_root())
    base = base_model(found["prose"][0], settings, seed)
    rows = {kind: windows(held, settings["peft_windows"], LENGTH, seed=TEST) for kind, (_, held) in found.items()}
    scores = {kind: {"base": losses(base, rows[kind]).tolist()} for kind in rows}
    weights = {"base": base.num_parameters()}
    for method in METHODS:
        model = equipped(base, method, seed)
        weights[method] = stored_weights(model, method)
        fitted(model, found["code"][0], settings["peft_steps"], settings, rates[method], seed)
        for kind in rows:
            scores[kind][method] = [round(float(v), 5) for v in losses(model, rows[kind])]
    return {"seed": seed, "scores": scores, "weights": weights}


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Nats per byte of code and prose per window; `gain` on code over the base, with shares of the full gain."""
    evidence, count = Evidence("survey_llm", "survey_llm-tuning"), settings["peft_windows"]
    evidence.units("window", [f"window/{i}" for i in range(count)], asked=count)
    for metric in ("code", "prose", "gain"):
        evidence.metric(metric, units="window", higher_is_better=metric == "gain", floor=None)
    for result in results:
        for kind, arms in result["scores"].items():
            for arm, values in arms.items():
                evidence.add(kind, arm=arm, seed=result["seed"], values=values)
        base = np.array(result["scores"]["code"]["base"])
        gains = {method: base - result["scores"]["code"][method] for method in METHODS}
        gains |= {name: share * gains["full"] for name, share in SHARES.items()}
        for arm, values in gains.items():
            evidence.add("gain", arm=arm, seed=result["seed"], values=values.round(5).tolist())
    return evidence.as_dict()
