"""One pass over samples: norm, projected gradient, loss and EL2N of each, in padded batches.

The loss is the sum over samples of each one's own mean over answer tokens: a mean over the batch's tokens would weigh
every sample by its share of them. What cannot matter to the answers is left out of the forward pass (see `answers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mmlib.errors import UserError
from mmlib.tive.answers import Positions, answer_logits, last_mlp_at, short_is_exact
from mmlib.tive.lora import OUTSIDE, WITHIN, Layer, capture, find_layers
from mmlib.tive.projection import Projection, draw_projection
from mmlib.tive.samples import Batch, Features, Sample, buckets, check, collate

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel

COLUMNS = ("norm", "loss", "el2n", "answers", "tokens")


@dataclass(frozen=True)
class Gradients:
    """Of n samples, in their order."""

    vectors: np.ndarray  # (n, k) float32, projected; (n, D) without a projection
    columns: dict[str, np.ndarray]  # float64 (n,): unprojected L2 norm, mean loss (nats), EL2N, answer tokens, tokens


def gradient_pass(
    model: PreTrainedModel,
    samples: list[Sample],
    *,
    features: Features | None = None,
    size: int | None = None,
    seed: int = 0,
    loss: Literal["mean", "sum"] = "mean",
    within: str = WITHIN,
    outside: tuple[str, ...] = OUTSIDE,
    tokens: int = 4096,
    pad: int = 0,
) -> Gradients:
    """Exact gradients of every sample's answer loss with respect to the LoRA layers of `model`.

    Args:
        model: any transformers model under PEFT LoRA (or with LoRA layers injected), in eval mode.
        features: pictures' features, for samples with pictures (see `samples`).
        size: numbers of a projected gradient, a multiple of the rank; None: the whole gradient, matrices in the order
            of `lora.names_of`.
        loss: `mean` over answer tokens (the paper's), or their `sum`.
        within, outside: which LoRA layers; by default attention of the language model.
        tokens: padded tokens of a batch.
    Raises:
        UserError: naming a sample without an answer, a layer that is not plain LoRA, or mismatched pictures.
    """
    import numpy as np

    check(samples)
    layers = find_layers(model, within, outside)
    projection = draw_projection(layers, size, seed) if size else None
    width = size or sum(layer.rank * sum(layer.widths) for layer in layers)
    vectors, table = np.empty((len(samples), width), np.float32), np.empty((len(COLUMNS), len(samples)))
    if not samples:
        return Gradients(vectors, dict(zip(COLUMNS, table, strict=True)))
    collector = Collector(layers, projection)
    core, watched = core_of(model), [layer.module for layer in layers]
    with (
        capture(model, layers, collector, projection and projection.rotations),
        last_mlp_at(core, watched) as positions,
    ):
        short = short_is_exact(core, samples, features, pad, positions)
        for rows in buckets(samples, tokens):
            batch = collate(samples, rows, pad)
            collector.begin(len(rows))
            table[1:, rows] = _forward_backward(core, batch, features, loss, short, positions)
            table[0, rows], vectors[rows] = collector.norms(), collector.vectors()
    return Gradients(vectors, dict(zip(COLUMNS, table, strict=True)))


def core_of(model: Any) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class Collector:
    """Sink of `lora.capture`: norms and projections of a batch, layer by layer; gradients are not kept."""

    def __init__(self, layers: list[Layer], projection: Projection | None) -> None:
        self.layers, self.projection = layers, projection

    def begin(self, count: int) -> None:
        """Forget the last batch; the next has `count` samples."""
        import torch

        device, k = self.layers[0].a.device, self.projection
        self.count, self.seen = count, [False] * len(self.layers)
        self.squares = torch.zeros(count, device=device, dtype=torch.float64)
        self.total = torch.zeros(count * k.rank, k.width, device=device) if k else None
        self.parts: list[tuple[Tensor, Tensor]] = [()] * len(self.layers)

    def __call__(self, number: int, grad_a: Tensor, grad_b: Tensor) -> None:
        """Take ∇A (N, r, d_in) and ∇Bᵀ (N, r, d_out) of a layer."""
        self._expect(number, len(grad_a))
        for side, grad in enumerate((grad_a, grad_b)):
            self.squares += grad.flatten(1).norm(dim=1).double().square()
            if self.projection:
                self.total.addmm_(grad.view(-1, grad.shape[-1]), self.projection.columns[number][side])
        if not self.projection:
            self.parts[number] = (grad_a, grad_b)

    def _expect(self, number: int, count: int) -> None:
        if self.seen[number] or count != self.count:
            what = "was used twice in one pass" if self.seen[number] else f"saw {count} rows in a batch of {self.count}"
            raise UserError(f"LoRA layer {self.layers[number].name} {what}", "leave it out by `within` or `outside`")
        self.seen[number] = True

    def norms(self) -> np.ndarray:
        """(N,) L2 norms of the whole gradients."""
        if not all(self.seen):
            missing = self.layers[self.seen.index(False)].name
            raise UserError(f"LoRA layer {missing} took no part in the answers", "leave it out by `within`")
        return self.squares.sqrt().cpu().numpy()

    def vectors(self) -> np.ndarray:
        """(N, k) projected, or (N, D) whole gradients."""
        import torch

        if self.projection:
            return self.total.view(self.count, -1).cpu().numpy()
        return torch.cat([grad.flatten(1) for pair in self.parts for grad in pair], 1).cpu().numpy()


def _forward_backward(
    core: PreTrainedModel, batch: Batch, features: Features | None, loss: str, short: bool, positions: Positions
) -> np.ndarray:
    """(4, N) mean loss, EL2N, answer tokens and tokens of the batch, after its backward pass."""
    import numpy as np
    import torch

    logits, targets, owners = answer_logits(core, batch, features, short, positions)  # (M, V), (M,), (M,)
    counts = torch.bincount(owners, minlength=len(batch.rows))
    token_losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    weights = 1 / counts[owners] if loss == "mean" else torch.ones_like(token_losses)
    (token_losses * weights).sum().backward()
    means = [torch.zeros(len(counts), dtype=torch.float64, device=owners.device).index_add_(0, owners, v.double())
             / counts for v in (token_losses.detach(), error_norms(logits.detach(), targets))]  # fmt: skip
    return np.stack([v.cpu().numpy() for v in (*means, counts, batch.mask.sum(1))])


def error_norms(logits: Tensor, targets: Tensor) -> Tensor:
    """(M,) L2 norm of softmax minus one-hot: EL2N of a token (arXiv:2107.07075)."""
    p = logits.softmax(-1)
    return (p.square().sum(-1) - 2 * p.gather(1, targets[:, None])[:, 0] + 1).clamp_min(0).sqrt()
