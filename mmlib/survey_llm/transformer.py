"""A small decoder whose position scheme can be exchanged: what the studies of this section train from scratch.

Pre-norm blocks (RMSNorm, GELU), no biases, untied output layer. Positions (section 4.2.2 of the survey): `learned`,
`sinusoidal` (Vaswani et al. 2017, section 3.5), `rope` (Su et al. 2021, eq. 34), `t5` (learned bias per bucketed
distance, Raffel et al. 2020), `alibi` (Press et al. 2022, slopes 2^(-8h/H)), `none` (Kazemnejad et al. 2023).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SCHEMES = ("learned", "sinusoidal", "rope", "t5", "alibi", "none")
Past = dict[nn.Module, tuple[Tensor, Tensor]] | None  # block -> keys, values (B, H, T, head) of what was read before
IGNORED = -100  # label of a position that carries no loss


@dataclass(frozen=True)
class Shape:
    """Vocabulary, hidden width, blocks, head width, position scheme, longest sequence that `learned` knows."""

    vocabulary: int = 256
    width: int = 32
    layers: int = 2
    head: int = 16
    positions: str = "rope"
    longest: int = 64
    feed_forward: bool = True

    @property
    def block_parameters(self) -> int:
        """N of the scaling laws: weights of the blocks' matrices, without embedding and output layer."""
        return self.layers * (12 if self.feed_forward else 4) * self.width**2


@functools.lru_cache(maxsize=256)
def turns(first: int, last: int, width: int, scale: float = 1.0, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, d/2) of places first … last - 1, times `scale`: pair i turns by place · base^(-2i/d)."""
    half = width // 2
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        angles = scale * torch.arange(first, last)[:, None] * base ** (-torch.arange(half) / half)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (B, H, T, d) by `turns`."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def sinusoids(length: int, width: int) -> Tensor:
    """(T, width) sines and cosines of the original Transformer."""
    angles = torch.arange(length)[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.cat([angles.sin(), angles.cos()], -1)


def distances(length: int) -> Tensor:
    """(T, T): how far key j lies before query i."""
    return (torch.arange(length)[:, None] - torch.arange(length)).clamp(min=0)


def alibi_bias(length: int, heads: int) -> Tensor:
    """(H, T, T): minus slope times distance."""
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
    return -slopes[:, None, None] * distances(length)


@functools.lru_cache(maxsize=256)
def buckets(length: int, count: int = 16, farthest: int = 64) -> Tensor:
    """(T, T) bucket of each distance: half of them exact, the rest logarithmic up to `farthest`, as in T5."""
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        far, exact = distances(length), count // 2
        log = exact + (far.clamp(min=1) / exact).log() / math.log(farthest / exact) * (count - exact)
        return torch.where(far < exact, far, log.long().clamp(max=count - 1))


class Block(nn.Module):
    """Attention and feed-forward part, each after a norm and added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.width
        self.shape = shape
        self.before_attention, self.before_feed_forward = nn.RMSNorm(d), nn.RMSNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        if shape.feed_forward:
            self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None, rotation: tuple[Tensor, Tensor] | None, past: Past) -> Tensor:
        """x (B, t, d); mask (1 or H, t, T) is added to the scores, without one queries see all keys up to their own."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.before_attention(x)).view(b, t, 3, -1, self.shape.head).permute(2, 0, 3, 1, 4)
        if rotation:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if past is not None:  # keys and values of all tokens so far
            before = past.get(self, (k[:, :, :0], v[:, :, :0]))
            k, v = past[self] = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
        causal = mask is None and t > 1
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)  # (B, H, t, head)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        if self.shape.feed_forward:
            x = x + self.down(functional.gelu(self.up(self.before_feed_forward(x))))
        return x


class Decoder(nn.Module):
    """`forward` gives what Trainer expects: `loss` (mean nats over labels that are not IGNORED) and `logits`."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm, self.head = nn.RMSNorm(shape.width), nn.Linear(shape.width, shape.vocabulary, bias=False)
        if shape.positions == "learned":
            self.places = nn.Embedding(shape.longest, shape.width)
        if shape.positions == "t5":
            self.bias = nn.Embedding(16, shape.width // shape.head)
        self._initialise()

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.4 / math.sqrt(weight.shape[1]) if "blocks" in name else 0.05)

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        scale: float = 1.0,
        base: float = 10_000.0,
        past: Past = None,
    ) -> dict[str, Tensor]:
        """input_ids, labels (B, t); labels[i] is what position i should say (already shifted).

        Args:
            scale: positions are multiplied by it (position interpolation, Chen et al. 2023).
            base: of the rotary frequencies.
            past: keys and values of the tokens before these ones, which this call adds its own to; {} at the start.
        """
        seen = next(iter(past.values()))[0].shape[2] if past else 0
        length = seen + input_ids.shape[1]
        x = self.embedding(input_ids)  # (B, t, d)
        if self.shape.positions == "learned":
            x = x + self.places(torch.arange(seen, length))
        if self.shape.positions == "sinusoidal":
            x = x + 0.05 * sinusoids(length, self.shape.width)[seen:]  # as large as the embedding at the start
        rotation = turns(seen, length, self.shape.head, scale, base) if self.shape.positions == "rope" else None
        mask = self._mask(seen, length)
        for block in self.blocks:
            x = block(x, mask, rotation, past)
        logits = self.head(self.norm(x))  # (B, t, V)
        if labels is None:
            return {"logits": logits}
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return {"loss": loss, "logits": logits}

    def _mask(self, seen: int, length: int) -> Tensor | None:
        """(1 or H, t, T) of the tokens from `seen` on; None where "up to its own place" says all."""
        bias, heads = torch.zeros(1, length, length), self.shape.width // self.shape.head
        if self.shape.positions == "alibi":
            bias = alibi_bias(length, heads)
        elif self.shape.positions == "t5":
            bias = self.bias(buckets(length)).permute(2, 0, 1)  # (H, T, T)
        elif seen == 0 or length == seen + 1:
            return None
        return bias.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)[:, seen:]
