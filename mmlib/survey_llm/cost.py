"""The cost of a token in a prompt, and of one that is generated (section 9.4): SmolLM2-135M on one core.

And of attention alone while decoding, by how many heads share keys and values: all have their own (MHA), groups share
(GQA), all share one set (MQA).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib.evidence import Evidence

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SHARING = {"MHA": 8, "GQA": 2, "MQA": 1}  # sets of keys and values for HEADS heads of attention
HEADS, HEAD_WIDTH, CALLS = 8, 64, 10


def token_costs(model: PreTrainedModel, length: int, batch: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of one core per token, `repeats` times: a whole prompt, one more token with and without its cache.

    CPU time of this process, not wall time: others may use the machine.
    """
    import torch

    def cost(tokens: int, call: Any) -> float:
        started = time.process_time()
        call()
        return 1000 * (time.process_time() - started) / tokens

    found: dict[str, list[float]] = {"prefill": [], "decode": [], "decode, batch": [], "decode, no cache": []}
    with torch.inference_mode():
        ids = torch.randint(0, model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))
        caches = {rows: model(ids[:rows], use_cache=True, logits_to_keep=1).past_key_values for rows in (1, batch)}
        for _ in range(repeats):
            found["prefill"].append(cost(length, lambda: model(ids[:1], logits_to_keep=1)))
            found["decode, no cache"].append(cost(1, lambda: model(ids[:1], logits_to_keep=1)))
            for name, rows in (("decode", 1), ("decode, batch", batch)):
                found[name].append(cost(rows, lambda rows=rows: model(ids[:rows, -1:], past_key_values=caches[rows])))
                caches[rows].crop(-1)  # one token less: the next step finds what this one found
    return found


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One decoding step, (B, HEADS, d): heads that share keys and values (B, sets, T, d) read them once."""
    b, sets, _, d = k.shape
    q = q.view(b, sets, -1, d)  # (B, sets, heads per set, d)
    return ((q @ k.transpose(-1, -2) / d**0.5).softmax(-1) @ v).view(b, -1, d)


def attention_costs(length: int, batch: int, repeats: int) -> dict[str, list[float]]:
    """CPU milliseconds per token of one attention layer of HEADS heads while decoding, by how many share a set."""
    import torch

    draw, found = torch.Generator().manual_seed(0), {name: [] for name in SHARING}
    q = torch.randn(batch, HEADS, HEAD_WIDTH, generator=draw)
    caches = {n: torch.randn(2, batch, s, length, HEAD_WIDTH, generator=draw) for n, s in SHARING.items()}
    for name, (k, v) in caches.items():
        attend(q, k, v)  # not counted: allocation
        for _ in range(repeats):
            started = time.process_time()
            for _ in range(CALLS):
                attend(q, k, v)
            found[name].append(1000 / CALLS * (time.process_time() - started) / batch)
    return found


def cost_evidence(costs: dict[str, list[float]]) -> dict[str, Any]:
    """log10 of milliseconds per token, per repetition."""
    repeats = len(next(iter(costs.values())))
    evidence = Evidence("survey_llm", "survey_llm-roofline")
    evidence.units("repeat", [f"repeat/{i}" for i in range(repeats)], asked=repeats)
    evidence.metric("log10_ms", units="repeat", higher_is_better=False, floor=None)
    for arm, values in costs.items():
        evidence.add("log10_ms", arm=arm, seed=None, values=[float(np.log10(v)) for v in values])
    return evidence.as_dict()
