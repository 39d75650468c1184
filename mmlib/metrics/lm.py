"""Language-model metrics on fixed windows: token perplexity, KL to a reference model, top-1 agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def hidden_states(model: PreTrainedModel, windows: Tensor) -> Tensor:
    """Final hidden states (W, L, d) of token windows (W, L): logits are these times the output embedding."""
    import torch

    with torch.inference_mode():
        return model.model(windows.to(model.device), use_cache=False).last_hidden_state


def perplexity(nll: list[float]) -> float:
    """exp of the mean of per-window mean negative log-likelihoods (nats per token).

    This is the GPTQ-style *token* perplexity; lm-evaluation-harness reports word perplexity instead.
    """
    import math

    return math.exp(sum(nll) / len(nll))


def log_probabilities(model: PreTrainedModel, windows: Tensor) -> Tensor:
    """Log-probabilities (W, L, V) of the next token at every position, float32: 200 MB per thousand tokens."""
    import torch

    states = hidden_states(model, windows)
    result = torch.empty(*states.shape[:2], model.config.vocab_size)
    with torch.inference_mode():
        for number, state in enumerate(states):
            result[number] = model.lm_head(state).log_softmax(-1)
    return result


def window_metrics(model: PreTrainedModel, windows: Tensor, reference: Tensor) -> dict[str, list[float]]:
    """Per window: mean NLL, mean KL(reference || model) in nats, share of positions with equal top-1 token.

    Args:
        windows: token ids (W, L).
        reference: log-probabilities (W, L, V) of the reference model.
    """
    import torch

    result: dict[str, list[float]] = {"nll": [], "kl": [], "top1": []}
    states = hidden_states(model, windows)
    with torch.inference_mode():
        for ids, own, ref in zip(windows.to(model.device), states, reference, strict=True):
            logp = model.lm_head(own).log_softmax(-1)  # (L, V)
            kl = torch.nn.functional.kl_div(logp, ref, log_target=True, reduction="batchmean")
            result["nll"].append(-logp[:-1].gather(1, ids[1:, None]).mean().item())
            result["kl"].append(kl.item())
            result["top1"].append((logp.argmax(-1) == ref.argmax(-1)).float().mean().item())
    return result
