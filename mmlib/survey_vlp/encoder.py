"""One configurable encoder for the survey's taxonomy (section 3): towers, single stream, dual stream, and mixtures.

Single stream: self-attention over the concatenation. Dual stream: self- and cross-attention in either stream (ViLBERT,
LXMERT). `cross`: only the text attends to the picture (ALBEF, decoders). A dual encoder has towers and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.survey_vlp.scenes import PAD, WORDS

IGNORED = -100


@dataclass(frozen=True)
class Shape:
    """Widths and layers; `heads` are output layers by name and size, `tokens` and `values` those of a picture."""

    width: int = 64
    text: int = 0
    image: int = 0
    joint: int = 0
    scheme: str = "single"
    tokens: int = 4
    values: int = 432
    length: int = 18
    positions: bool = True
    heads: dict[str, int] = field(default_factory=dict)


class Attention(nn.Module):
    """Multi-head attention of x to y, heads of 16."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, d), y (B, S, d), mask bool (B, 1, T or 1, S): True may be attended."""
        b, t, d = x.shape
        q = self.q(x).view(b, t, -1, 16).transpose(1, 2)  # (B, H, T, 16)
        k, v = self.kv(y).view(b, y.shape[1], 2, -1, 16).permute(2, 0, 3, 1, 4)
        return self.out(functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    """Self-attention, cross-attention where `cross`, feed-forward; each after a norm, added to the stream."""

    def __init__(self, d: int, cross: bool = False) -> None:
        super().__init__()
        self.itself, self.other = Attention(d), Attention(d) if cross else None
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3 if cross else 2))

    def forward(self, x: Tensor, mask: Tensor, y: Tensor | None = None, y_mask: Tensor | None = None) -> Tensor:
        """x (B, T, d) attends to itself under `mask` and, if `cross`, to y (B, S, d) under `y_mask`."""
        normed = self.norms[0](x)
        x = x + self.itself(normed, normed, mask)
        if self.other is not None:
            x = x + self.other(self.norms[2](x), y, y_mask)
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Encoder(nn.Module):
    """`text` and `image` give hidden states of one modality, `fuse` of both; `head` maps them to outputs."""

    def __init__(self, shape: Shape, seed: int, pixels: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(seed)
        d, self.shape = shape.width, shape
        self.embed_words, self.embed_text_places = nn.Embedding(len(WORDS), d), nn.Embedding(shape.length, d)
        self.embed_pixels, self.embed_image_places = pixels or nn.Linear(shape.values, d), nn.Embedding(shape.tokens, d)
        self.embed_masked = nn.Parameter(0.02 * torch.randn(shape.values))
        self.text_blocks = nn.ModuleList(Block(d) for _ in range(shape.text))
        self.image_blocks = nn.ModuleList(Block(d) for _ in range(shape.image))
        self.joint_blocks = nn.ModuleList(Block(d, shape.scheme != "single") for _ in range(shape.joint))
        self.joint_image_blocks = nn.ModuleList(Block(d, True) for _ in range(shape.joint * (shape.scheme == "dual")))
        self.norm, self.image_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.lm_heads = nn.ModuleDict({name: nn.Linear(d, size) for name, size in shape.heads.items()})
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        for weight in (self.embed_words, self.embed_text_places, self.embed_image_places):
            nn.init.normal_(weight.weight, std=0.1)

    def text(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, T) -> hidden (B, T, d), mask (B, 1, 1, T)."""
        x, mask = self.embed_words(ids), (ids != PAD)[:, None, None]
        x = x + self.embed_text_places(torch.arange(ids.shape[1])) * self.shape.positions
        for block in self.text_blocks:
            x = block(x, mask)
        return x, mask

    def image(self, tokens: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """tokens (B, P, values), `seen` bool (B, P) -> hidden (B, P, d), mask (B, 1, 1, P)."""
        x = self.embed_pixels(tokens)
        x = x + self.embed_image_places(torch.arange(x.shape[1])) * self.shape.positions
        mask = (torch.ones(x.shape[:2]).bool() if seen is None else seen)[:, None, None]
        for block in self.image_blocks:
            x = block(x, mask)
        return x, mask

    def fuse(self, text: tuple[Tensor, Tensor], image: tuple[Tensor, Tensor], causal: bool = False) -> tuple:
        """Hidden states of text (B, T, d) and picture (B, P, d) after the joint blocks; `causal` text is a PrefixLM."""
        (x, x_mask), (y, y_mask) = text, image
        t, p = x.shape[1], y.shape[1]
        if causal:
            x_mask = x_mask & torch.ones(t, t).tril().bool()  # (B, 1, T, T)
        if self.shape.scheme == "single":
            mask = torch.cat([x_mask.expand(-1, -1, t, -1), y_mask.expand(-1, -1, t, -1)], 3)
            below = torch.cat([x_mask[:, :, -1:] & (not causal), y_mask], 3).expand(-1, -1, p, -1)
            z, mask = torch.cat([x, y], 1), torch.cat([mask, below], 2)
            for block in self.joint_blocks:
                z = block(z, mask)
            x, y = z[:, :t], z[:, t:]
        for number, block in enumerate(self.joint_blocks if self.shape.scheme != "single" else []):
            before, x = x, block(x, x_mask, y, y_mask)
            if self.shape.scheme == "dual":
                y = self.joint_image_blocks[number](y, y_mask, before, text[1])
        return self.norm(x), self.image_norm(y)

    def forward(self, ids: Tensor, tokens: Tensor, seen: Tensor | None = None, causal: bool = False) -> tuple:
        """Texts (B, T) and pictures (B, P, values) -> their hidden states."""
        return self.fuse(self.text(ids), self.image(tokens, seen), causal)

    def head(self, name: str, hidden: Tensor) -> Tensor:
        """Outputs of a named head."""
        return self.lm_heads[name](hidden)

    def vectors(self, text: tuple, image: tuple, unit: bool = True) -> tuple[Tensor, Tensor]:
        """Vectors (B, d) of towers, of length 1 if `unit`: `<cls>` for texts, the mean of what is seen for pictures."""
        seen = image[1][:, 0, 0, :, None]
        pooled = (image[0] * seen).sum(1) / seen.sum(1)
        said, shown = self.head("to_text", self.norm(text[0][:, 0])), self.head("to_image", self.image_norm(pooled))
        return (functional.normalize(said, dim=-1), functional.normalize(shown, dim=-1)) if unit else (said, shown)


# ---- losses and training ---------------------------------------------------------------------------------------------


def contrast(said: Tensor, shown: Tensor, scale: Tensor | float, extra: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of unit vectors (B, d); `extra` (K, d) are further texts that belong to no picture."""
    right = torch.arange(len(said))
    logits = scale * shown @ torch.cat([said, said[:0] if extra is None else extra]).T  # (B, B + K)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits[:, : len(said)].T, right)) / 2


class Trained(nn.Module):
    """A model with the loss of numbered items, in the form that Trainer wants."""

    def __init__(self, model: nn.Module, loss: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, items: Tensor) -> dict[str, Tensor]:
        """items (B,) numbers -> loss."""
        return {"loss": self.loss(items)}


def train(
    model: nn.Module, loss: Callable[[Tensor], Tensor], steps: int, batch: int, seed: int, rate: float = 1.0
) -> list:
    """Train in place with one optimizer; rates are the same for all arms, or `rate` times that; the learning curve."""
    from mmlib.models.fit import fit

    return fit(Trained(model, loss), lambda items: {"items": torch.tensor(items)}, name="train", steps=steps,
               batch=batch, learning_rate=0.002 * rate, muon_learning_rate=0.005 * rate, seed=seed)  # fmt: skip


def parameters(model: nn.Module) -> int:
    """Trained weights."""
    return sum(weight.numel() for weight in model.parameters())
