"""Logits where an answer token is predicted, by a forward pass that leaves out what cannot matter to them.

Three shortcuts, each exact beyond float rounding for a causal decoder: with padding on the right no mask is needed; the
output layer is needed only where an answer token is predicted; so is the last block's MLP, since nothing after it looks
at other positions. `short_is_exact` compares losses with those of the whole pass, so that a model that is built
otherwise (a bidirectional prefix, soft caps on logits) gets the whole one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmlib.tive.samples import IGNORED, Batch, Features, Sample, collate, embed

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

TOLERANCE = {True: 1e-4, False: 0.1}  # of losses, short against whole forward pass, by whether it is float32


class Positions:
    """Rows of the flattened batch that predict an answer token, for the last block's MLP; None: all rows."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None


def answer_logits(
    core: PreTrainedModel, batch: Batch, features: Features | None, short: bool = True,
    positions: Positions | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Float32 logits (M, V) that predict answer tokens, these tokens (M,), and the rows (M,) they belong to.

    Args:
        short: no mask, and the output layer only where an answer is predicted.
        positions: of `last_mlp_at`, to be told the batch's.
    """
    embeds = embed(core, batch, features)
    labels = batch.labels[:, 1:].to(embeds.device)
    owners, at = (labels != IGNORED).nonzero(as_tuple=True)
    rows = owners * embeds.shape[1] + at
    if positions:
        positions.rows = rows if short else None
    if short:
        hidden = core.model(inputs_embeds=embeds, use_cache=False).last_hidden_state  # (N, T, D)
        logits = core.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, rows))
    else:
        mask = batch.mask.to(embeds.device)
        logits = core(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits[owners, at]
    return logits.float(), labels[owners, at], owners


@contextlib.contextmanager
def last_mlp_at(core: PreTrainedModel, watched: list[Module]) -> Iterator[Positions]:
    """While inside, the last block's MLP works on the rows of the yielded `Positions` alone and gives zeros elsewhere.

    Not if the model names its parts otherwise, or if the MLP holds a layer that is `watched` in its full shape.
    """
    positions, mlp = Positions(), _last_mlp(core)
    if mlp is None or any(module in watched for module in mlp.modules()):
        yield positions
        return
    whole = mlp.forward

    def forward(x: Tensor) -> Tensor:
        if positions.rows is None:
            return whole(x)
        made = whole(x.flatten(0, 1).index_select(0, positions.rows)[None])[0]  # (M, D)
        return made.new_zeros(x.shape[0] * x.shape[1], made.shape[1]).index_copy(0, positions.rows, made).view_as(x)

    mlp.forward = forward
    try:
        yield positions
    finally:
        del mlp.forward


def _last_mlp(core: Any) -> Module | None:
    try:
        return core.get_decoder().layers[-1].mlp
    except (AttributeError, TypeError, IndexError):
        return None


def short_is_exact(
    core: PreTrainedModel, samples: list[Sample], features: Features | None, pad: int, positions: Positions | None
) -> bool:
    """Whether the short forward pass gives the losses of the whole one, on the shortest and the longest sample."""
    import torch

    lengths = [len(sample.ids) for sample in samples]
    ends = sorted({lengths.index(min(lengths)), lengths.index(max(lengths))})
    batch, losses = collate(samples, ends, pad), []
    with torch.no_grad():
        for short in (True, False):
            try:
                logits, targets, _ = answer_logits(core, batch, features, short, positions)
            except (AttributeError, TypeError):  # a model without `.model` or `last_hidden_state`
                return False
            losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    exact = next(core.parameters()).dtype == torch.float32
    return torch.allclose(*losses, rtol=0, atol=TOLERANCE[exact])
