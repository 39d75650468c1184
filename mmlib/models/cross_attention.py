"""Text and multimodal encoder: BERT's post-norm layers, each with cross-attention to what is seen (VALOR's bert.py).

A sequence is [text ; prompt]; what is seen enters by cross-attention alone. Without vision it is a text encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.errors import UserError

BLENDS = ("single", "concat", "parallel", "stacked_vi", "stacked_iv")
STREAMS = ("video", "image")
FRAME_TABLE = 32  # longest clip, as in the group's code
EPS = 1e-12


def sequence_mask(text: Tensor, prompt: Tensor, causal: Tensor) -> Tensor:
    """Who may look at whom: bool (R, 1, n + m, n + m).

    Args:
        text: which text tokens are no padding, bool (R, n); prompt: the same for (R, m).
        causal: which rows are generative, bool (R,): their text sees its past, and no prompt sees text.
    """
    n, m = text.shape[1], prompt.shape[1]
    lower = torch.ones(n, n, dtype=torch.bool, device=text.device).tril()
    allowed = torch.ones(len(text), n + m, n + m, dtype=torch.bool, device=text.device)
    allowed[:, :n, :n] = lower | ~causal[:, None, None]
    allowed[:, n:, :n] = ~causal[:, None, None]
    allowed &= torch.cat([text, prompt], 1)[:, None]
    # A row of padding must look somewhere: softmax over nothing is NaN.
    return (allowed | torch.eye(n + m, dtype=torch.bool, device=text.device))[:, None]


class Attention(nn.Module):
    """Multi-head attention of queries (B, n, D) to keys (B, s, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mask: True where a query may look, broadcast to (B, heads, n, s)."""
        q, k, v = (
            part.view(*part.shape[:2], self.heads, -1).transpose(1, 2)
            for part in (self.query(x), self.key(seen), self.value(seen))
        )
        return self.out(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Self-attention, cross-attention in the chosen form of blending, feed-forward; LayerNorm after each."""

    def __init__(self, width: int, heads: int, blend: str) -> None:
        super().__init__()
        self.blend = blend
        self.attend, self.norm = Attention(width, heads), nn.LayerNorm(width, EPS)
        names = ("shared",) if blend in ("single", "concat") else STREAMS
        self.cross = nn.ModuleDict({name: Attention(width, heads) for name in names})
        self.cross_norm = nn.ModuleDict({name: nn.LayerNorm(width, EPS) for name in names})
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.last_norm = nn.LayerNorm(width, EPS)

    def forward(self, h: Tensor, mask: Tensor, streams: dict[str, Tensor] | None) -> Tensor:
        """Text (B, Q, n, D): Q sequences about each of B clips; streams {name: (B, s, D)} or None."""
        b, q, n, d = h.shape
        flat = h.view(b * q, n, d)
        h = self.norm(flat + self.attend(flat, flat, mask)).view(b, q * n, d)
        if streams:
            h = self._blend(h, streams)
        h = self.last_norm(h + self.shrink(functional.gelu(self.grow(h))))
        return h.view(b, q, n, d)

    def _blend(self, h: Tensor, streams: dict[str, Tensor]) -> Tensor:
        if self.blend in ("single", "concat"):
            return self._look(h, "shared", torch.cat(list(streams.values()), 1))
        if self.blend == "parallel":  # each term keeps its own residual: h counts twice (VALOR, va_parallel)
            return sum(self._look(h, name, streams[name]) for name in STREAMS)
        for name in STREAMS if self.blend == "stacked_vi" else STREAMS[::-1]:
            h = self._look(h, name, streams[name])
        return h

    def _look(self, h: Tensor, name: str, seen: Tensor) -> Tensor:
        return self.cross_norm[name](h + self.cross[name](h, seen))


class VisualTokens(nn.Module):
    """Tokens of an encoder -> keys: projection if widths differ, frame embedding, type embedding.

    Args:
        pool: average over frames first, for the baseline that cannot see order.
        frame_embedding: add a learned vector per frame; without it attention over keys cannot see order either.
    """

    def __init__(self, seen: int, width: int, pool: bool = False, frame_embedding: bool = True) -> None:
        super().__init__()
        same = seen == width
        self.project = nn.Identity() if same else nn.Sequential(nn.Linear(seen, width), nn.LayerNorm(width, EPS))
        self.pool = pool
        self.frame = nn.Parameter(0.02 * torch.randn(1, FRAME_TABLE, 1, width)) if frame_embedding else None
        self.origin = nn.Parameter(0.02 * torch.randn(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N + 1, D_v) -> (B, T * (N + 1), D), or (B, N + 1, D) if pooled."""
        if self.pool:
            x = x.mean(1, keepdim=True)
        x = self.project(x)
        if self.frame is not None:
            x = x + self.frame[:, : x.shape[1]]
        return x.flatten(1, 2) + self.origin


class MultimodalEncoder(nn.Module):
    """Embeddings, layers and word head over [text ; prompt]."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, blend: str, length: int = 32) -> None:
        super().__init__()
        if blend not in BLENDS:
            raise UserError(f"unknown form of blending `{blend}`", f"choose from: {', '.join(BLENDS)}")
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)  # a prompt counts from 0 again
        self.kinds = nn.Embedding(2, width)  # text, prompt
        self.norm = nn.LayerNorm(width, EPS)
        self.layers = nn.ModuleList([Layer(width, heads, blend) for _ in range(layers)])
        self.dense, self.head_norm = nn.Linear(width, width), nn.LayerNorm(width, EPS)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        for table in (self.words, self.places, self.kinds):
            nn.init.normal_(table.weight, std=0.02)

    def forward(
        self, text: Tensor, prompt: Tensor, causal: Tensor, pad: int, streams: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Vectors of the text tokens: (B, Q, n, D).

        Args:
            text: ids (B, Q, n); prompt: ids (B, Q, m); causal: bool (B, Q).
        """
        n = text.shape[-1]
        mask = sequence_mask((text != pad).flatten(0, 1), (prompt != pad).flatten(0, 1), causal.flatten())
        h = self.norm(torch.cat([self._embed(text, 0), self._embed(prompt, 1)], 2))
        for layer in self.layers:
            h = layer(h, mask, streams)
        return h[:, :, :n]

    def _embed(self, ids: Tensor, kind: int) -> Tensor:
        return self.words(ids) + self.places.weight[: ids.shape[-1]] + self.kinds.weight[kind]

    def logits(self, h: Tensor) -> Tensor:
        """Word scores; the decoder is the word embedding."""
        return functional.linear(self.head_norm(functional.gelu(self.dense(h))), self.words.weight, self.bias)
