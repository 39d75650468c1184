"""Video encoder: CLIP's own vision weights, with adapters that let frames see each other.

All adapters have the form X + Up(phi(TempOp(Down(X)))) (VLAB names the module, not the operator: every operator below
is a reconstruction from a public relative). Exactly one factor of the product starts at zero: then the encoder starts
as the image encoder, and yet the zero factor has a gradient; with two zero factors nothing would ever move.

| name  | TempOp                                                  | zero factor    | after                     |
|-------|---------------------------------------------------------|----------------|---------------------------|
| none  | no adapter                                              |                |                           |
| mlp   | none, GELU: capacity without time                       | Up             | AIM's spatial adapter     |
| tconv | depth-wise convolution over time, patches only          | convolution    | ST-Adapter, k = (3, 1, 1) |
| st3d  | depth-wise convolution over time, height, width         | convolution    | ST-Adapter, k = (3, 3, 3) |
| tattn | self-attention over time at every place                 | Up             | reconstruction            |
| aim   | the block's own attention with axes swapped to time     | each last Up   | AIM                       |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.errors import UserError

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

ADAPTERS = ("none", "mlp", "tconv", "st3d", "tattn", "aim")
POSITIONS = ("attention", "mlp", "both")  # before which part of a block
FREEZE = ("all_but_adapter", "clip_small_lr", "none")


class Bottleneck(nn.Module):
    """Down, an operator on (B, T, N + 1, d), Up, and the residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def operate(self, h: Tensor) -> Tensor:
        """(B, T, N + 1, d) -> same shape."""
        raise NotImplementedError

    def change(self, x: Tensor) -> Tensor:
        """What the adapter adds to x."""
        return self.up(self.operate(self.down(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, N + 1, D) -> same shape."""
        return x + self.change(x)


class Mlp(Bottleneck):
    """No mixing over time."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        nn.init.zeros_(self.up.weight)

    def operate(self, h: Tensor) -> Tensor:
        """GELU."""
        return functional.gelu(h)


class Convolution(Bottleneck):
    """Depth-wise convolution of the patches over time (and space); CLS adds nothing (as in st-adapter's code)."""

    def __init__(self, width: int, hidden: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(width, hidden)
        self.conv = nn.Conv3d(hidden, hidden, kernel, padding=tuple(k // 2 for k in kernel), groups=hidden)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def change(self, x: Tensor) -> Tensor:
        """Zero for CLS, which sees time through the patches of its frame in the attention that follows."""
        return functional.pad(super().change(x[:, :, 1:]), (0, 0, 1, 0))

    def operate(self, h: Tensor) -> Tensor:
        """(B, T, N, d), N a square number of patches."""
        b, t, n, d = h.shape
        side = int(n**0.5)
        if self.conv.kernel_size[1:] == (1, 1):  # the same numbers, without im2col: several times faster on a CPU
            return self._over_time(h)
        volume = h.permute(0, 3, 1, 2).reshape(b, d, t, side, side)
        return self.conv(volume).reshape(b, d, t, n).permute(0, 2, 3, 1)

    def _over_time(self, h: Tensor) -> Tensor:
        taps = self.conv.weight[:, 0, :, 0, 0]  # (d, k)
        reach = taps.shape[1] // 2
        padded = functional.pad(h, (0, 0, 0, 0, reach, reach))  # (B, T + 2 reach, N, d)
        return self.conv.bias + sum(padded[:, k : k + h.shape[1]] * taps[:, k] for k in range(taps.shape[1]))


class TemporalAttention(Bottleneck):
    """Self-attention over the T frames at each of the N + 1 places, with learned positions that start at zero."""

    def __init__(self, width: int, hidden: int, frames: int = 32, heads: int = 4) -> None:
        super().__init__(width, hidden)
        self.heads = heads
        self.position = nn.Parameter(torch.zeros(frames, hidden))
        self.qkv = nn.Linear(hidden, 3 * hidden)
        nn.init.zeros_(self.up.weight)

    def operate(self, h: Tensor) -> Tensor:
        """Attention over axis 1."""
        b, t, n, d = h.shape
        moved = (h + self.position[:t, None]).transpose(1, 2)  # (B, N, T, d)
        q, k, v = self.qkv(moved).view(b, n, t, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        seen = functional.scaled_dot_product_attention(q, k, v)  # (B, N, heads, T, d / heads)
        return seen.transpose(2, 3).reshape(b, n, t, d).transpose(1, 2)


class Aim(nn.Module):
    """AIM's three adapters around a block's own, frozen attention; a learned time embedding that starts at zero."""

    def __init__(self, width: int, hidden: int, frames: int = 32) -> None:
        super().__init__()
        self.time, self.space, self.joint = Mlp(width, hidden), Mlp(width, hidden), Mlp(width, hidden)
        self.position = nn.Parameter(torch.zeros(frames, width))

    def forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        """One whole block: time, space, then MLP in parallel with the third adapter."""
        b, t, n, d = x.shape
        over_time = (x + self.position[:t, None]).transpose(1, 2).reshape(b * n, t, d)
        x = x + self.time.change(_attend(layer, over_time).view(b, n, t, d).transpose(1, 2))
        x = x + self.space(_attend(layer, x.reshape(b * t, n, d)).view(b, t, n, d))
        normed = layer.layer_norm2(x)
        return x + layer.mlp(normed) + 0.5 * self.joint.change(normed)


def _attend(layer: nn.Module, x: Tensor) -> Tensor:
    return layer.self_attn(layer.layer_norm1(x), attention_mask=None)[0]


def build_adapter(name: str, width: int, hidden: int) -> nn.Module:
    """One adapter by name.

    Raises:
        UserError: unknown name.
    """
    builders: dict[str, Any] = {
        "mlp": lambda: Mlp(width, hidden),
        "tconv": lambda: Convolution(width, hidden, (3, 1, 1)),
        "st3d": lambda: Convolution(width, hidden, (3, 3, 3)),
        "tattn": lambda: TemporalAttention(width, hidden),
        "aim": lambda: Aim(width, hidden),
    }
    if name not in builders:
        raise UserError(f"unknown adapter `{name}`", f"choose from: {', '.join(ADAPTERS)}")
    return builders[name]()


class VideoEncoder(nn.Module):
    """CLIP's vision model over frames, adapters in chosen blocks; `vision` keeps CLIP's own names of weights.

    Args:
        vision: `CLIPModel.vision_model`; not copied.
        adapter: one of `ADAPTERS`.
        blocks: which blocks get adapters; None: every one.
        hidden: width of the bottleneck.
        position: before `attention`, before the `mlp`, or `both`; AIM has its own places.
    """

    def __init__(
        self, vision: CLIPVisionModel, adapter: str = "none", blocks: list[int] | None = None, hidden: int = 32,
        position: str = "attention",
    ) -> None:  # fmt: skip
        super().__init__()
        layers = len(vision.encoder.layers)
        blocks = list(range(layers)) if blocks is None else blocks
        if position not in POSITIONS:
            raise UserError(f"unknown place of an adapter `{position}`", f"choose from: {', '.join(POSITIONS)}")
        if bad := [block for block in blocks if not 0 <= block < layers]:
            raise UserError(f"no block {bad[0]} in an encoder of {layers}", f"choose 0 to {layers - 1}")
        self.vision, self.adapted = vision, blocks if adapter != "none" else []
        places = ("attention", "mlp") if position == "both" else (position,)
        places = ("attention",) if adapter == "aim" else places  # it replaces the whole block
        names = [f"{place}{block}" for block in self.adapted for place in places]
        width = vision.config.hidden_size
        self.adapters = nn.ModuleDict({name: build_adapter(adapter, width, hidden) for name in names})

    @property
    def first(self) -> int:
        """The first block with an adapter; all before it work frame by frame (none: the number of blocks)."""
        return min(self.adapted, default=len(self.vision.encoder.layers))

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised (B, T, 3, H, W) -> tokens (B, T, N + 1, D) that enter block 0."""
        x = self.vision.pre_layrnorm(self.vision.embeddings(pixels.flatten(0, 1)))
        return x.view(*pixels.shape[:2], *x.shape[1:])

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Tokens (B, T, N + 1, D) that enter block `start` -> all tokens after the last LayerNorm, same shape.

        CLIP itself normalises its CLS alone; the group's encoders normalise every token (VALOR, clip.py).
        """
        for number, layer in enumerate(self.vision.encoder.layers):
            if number >= start:
                x = self._block(number, layer, x)
        return self.vision.post_layernorm(x)

    def _block(self, number: int, layer: nn.Module, x: Tensor) -> Tensor:
        before, between = f"attention{number}", f"mlp{number}"
        if before in self.adapters:
            if isinstance(self.adapters[before], Aim):
                return self.adapters[before](x, layer)
            x = self.adapters[before](x)
        b, t, n, d = x.shape
        x = x + _attend(layer, x.reshape(b * t, n, d)).view(b, t, n, d)
        x = self.adapters[between](x) if between in self.adapters else x
        return x + layer.mlp(layer.layer_norm2(x))


def freeze(encoder: VideoEncoder, policy: str) -> None:
    """`all_but_adapter`: CLIP's weights stay; the others train all (`clip_small_lr` with a rate of its own)."""
    if policy not in FREEZE:
        raise UserError(f"unknown policy of freezing `{policy}`", f"choose from: {', '.join(FREEZE)}")
    encoder.vision.requires_grad_(policy != "all_but_adapter")
