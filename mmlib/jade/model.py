"""The vision-language decoder: CLIP's tokens of a picture (with a box drawn in), [target ; prompt] above them.

A target sees its past and the prompt, a prompt sees only itself: nothing of the prompt changes while a target grows.
Layers and visual tokens are those of the group's code (`mmlib.models.cross_attention`). A filter is the same class
without boxes.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.errors import UserError
from mmlib.jade.tokens import SPECIAL, first_word
from mmlib.models.cross_attention import EPS, Layer, VisualTokens

if TYPE_CHECKING:
    from transformers import CLIPModel

LENGTH = 40  # longest target or prompt
IGNORED = -100
# Initial deviation of embeddings. At 0.02 a step of Adam is a tenth of a word: nouns were rewritten faster than
# a model could learn to find the same noun twice, and "is there a dog ?" stayed at chance however long it was trained.
SPREAD = 0.1
ALIKE = 2.0  # initial queries and keys are equal and so many times as large as usual: like finds like from the start
TASKS = ("question", "answer", "caption")
Task = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Size of a model and what it is told of a box: the region-mask embedding, and location tokens (in the prompt)."""

    width: int = 96
    layers: int = 3
    heads: int = 4
    region: bool = True
    places: bool = True


class RegionVision(nn.Module):
    """CLIP's first blocks, frozen, with a box as a second picture through a patch embedding of its own.

    Pixels inside and outside a box become one of two learned colors; their patch embedding is added to the picture's
    before CLS and positions. The outputs of the first and of the last block used stand side by side: the first still
    tells where a patch was (see mmlib/models/llava.py).
    """

    def __init__(self, clip: CLIPModel, region: bool) -> None:
        super().__init__()
        self.vision = copy.deepcopy(clip.vision_model).requires_grad_(False)
        config = self.vision.config
        self.depth = max(1, config.num_hidden_layers - 1)
        self.seen = 2 * config.hidden_size
        self.region_embed = nn.Parameter(3**-0.5 * torch.randn(2, 3)) if region else None
        side = config.patch_size
        self.region_patch = nn.Conv2d(3, config.hidden_size, side, side, bias=False) if region else None
        if region:  # at first no box changes what CLIP was trained to see
            nn.init.zeros_(self.region_patch.weight)

    def patches(self, pixels: Tensor) -> Tensor:
        """Patch embeddings (N, W, h, w) of pictures (N, 3, H, W): the part that no box changes."""
        return self.vision.embeddings.patch_embedding(pixels)

    def _drawn(self, colours: Tensor) -> Tensor:
        """`region_patch` of (B, 3, H, W) as one product: patches do not overlap, and convolutions are slow here."""
        side, kernel = self.region_patch.stride[0], self.region_patch.weight.flatten(1)
        blocks = colours.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, 3, h, side, w, side)
        blocks = blocks.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, 3 side²)
        return functional.linear(blocks, kernel).permute(0, 3, 1, 2)

    def forward(self, patches: Tensor, region: Tensor | None = None) -> Tensor:
        """Tokens (B, N + 1, 2 W).

        Args:
            patches: (B, W, h, w); region: bool (B, H, W), True inside the box; None: no box is drawn in.
        """
        parts = self.vision.embeddings
        if region is not None:
            patches = patches + self._drawn(self.region_embed[region.long()].permute(0, 3, 1, 2))
        x = patches.flatten(2).transpose(1, 2)
        start = parts.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([start, x], 1) + parts.position_embedding.weight
        x, seen = self.vision.pre_layrnorm(x), []
        for layer in self.vision.encoder.layers[: self.depth]:
            x = layer(x, None)
            seen.append(x)
        return torch.cat([seen[0], seen[-1]], -1)


class Jade(nn.Module):
    """Generator or filter.

    Args:
        vocabulary: number of words; pad: id of padding.
    """

    def __init__(self, clip: CLIPModel, vocabulary: int, pad: int, shape: Shape, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shape, self.pad = shape, pad
        self.look = RegionVision(clip, shape.region)
        self.tokens = VisualTokens(self.look.seen, shape.width, frame_embedding=False)
        # Names with `embed`: mmlib.models.optimizer leaves those to AdamW.
        self.word_embed = nn.Embedding(vocabulary, shape.width)
        self.place_embed = nn.Embedding(LENGTH, shape.width)  # a prompt counts from 0 again
        self.kind_embed = nn.Embedding(2, shape.width)  # target, prompt
        for table in (self.word_embed, self.place_embed, self.kind_embed):
            nn.init.normal_(table.weight, std=SPREAD)
        with torch.no_grad():  # neighbours start alike: each coordinate is too rare to be learned as a word of its own
            side = self.look.vision.config.image_size
            self.word_embed.weight[len(SPECIAL) : first_word(side)] = waves(side, shape.width)
        self.norm = nn.LayerNorm(shape.width, EPS)
        self.layers = nn.ModuleList([Layer(shape.width, shape.heads, "single") for _ in range(shape.layers)])
        with torch.no_grad():
            for layer in self.layers:
                layer.cross["shared"].query.weight.mul_(ALIKE)
                for attention in (layer.attend, layer.cross["shared"]):
                    attention.key.weight.copy_(attention.query.weight)
        self.dense, self.head_norm = nn.Linear(shape.width, shape.width), nn.LayerNorm(shape.width, EPS)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def see(self, patches: Tensor, region: Tensor | None = None) -> Tensor:
        """Keys for cross-attention: (B, N + 1, D)."""
        return self.tokens(self.look(patches, region)[:, None])

    def embed(self, ids: Tensor, kind: int, places: Tensor | None = None) -> Tensor:
        """(…, n) -> (…, n, D); kind 0 target, 1 prompt; places count from 0 unless they are given."""
        if ids.shape[-1] > LENGTH:
            raise UserError(f"a text of {ids.shape[-1]} tokens", f"shorten it to {LENGTH}")
        where = self.place_embed.weight[: ids.shape[-1]] if places is None else self.place_embed(places)
        return self.norm(self.word_embed(ids) + where + self.kind_embed.weight[kind])

    def logits(self, h: Tensor) -> Tensor:
        """Word scores; the decoder is the word embedding."""
        h = self.head_norm(functional.gelu(self.dense(h)))
        return functional.linear(h, self.word_embed.weight, self.bias)

    def states(self, seen: Tensor, target: Tensor, prompt: Tensor) -> Tensor:
        """Vectors of the target's tokens (B, Q, n, D).

        Args:
            target: (B, Q, n), Q of each picture.
            prompt: (B, P, m); the first Q / P targets share the first prompt, and so on. Since a prompt sees no
                target and targets do not see each other, sharing changes nothing but the work.
        """
        b, q, n = target.shape
        together = q // prompt.shape[1]
        packed = target.view(b, -1, together * n)
        mask = two_part_mask((packed != self.pad).flatten(0, 1), (prompt != self.pad).flatten(0, 1), together)
        text = self.embed(target, 0).view(*packed.shape, -1)
        h = torch.cat([text, self.embed(prompt, 1)], 2)  # (B, P, Q/P n + m, D)
        for layer in self.layers:
            h = layer(h, mask, {"image": seen})
        return h[:, :, : together * n].reshape(b, q, n, -1)

    def forward(
        self,
        question: Task | None = None,
        answer: Task | None = None,
        caption: Task | None = None,
        dense: Task | None = None,
        pixels: Tensor | None = None,
        region: Tensor | None = None,
        features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss: the mean over the given tasks of each task's mean cross-entropy, `(L_q + L_a + L_c) / 3`.

        Args:
            question, answer, caption, dense (a second kind of captions): `target` and `prompt` ids (B, Q, n) and
                (B, P, m), `labels` (B, Q, n), -100 where nothing is asked.
            pixels: (B, 3, H, W), region: bool (B, H, W); or features (B, N + 1, 2 W) that were made before.
        """
        seen = self.tokens(features[:, None]) if features is not None else self.see(self.look.patches(pixels), region)
        given = [task for task in (question, answer, caption, dense) if task is not None]
        return {"loss": torch.stack([self._loss(seen, **task) for task in given]).mean()}

    def _loss(self, seen: Tensor, target: Tensor, prompt: Tensor, labels: Tensor) -> Tensor:
        asked = labels != IGNORED
        return functional.cross_entropy(self.logits(self.states(seen, target, prompt)[asked]), labels[asked])


def waves(count: int, width: int) -> Tensor:
    """Sines and cosines of 0 … count - 1 at `width` / 2 frequencies, as large as other initial embeddings."""
    speed = 2 * torch.pi * torch.logspace(-math.log10(2 * count), -math.log10(6), width // 2)
    angle = torch.arange(count)[:, None] * speed
    return SPREAD * 2**0.5 * torch.cat([angle.sin(), angle.cos()], 1)


def two_part_mask(text: Tensor, prompt: Tensor, together: int) -> Tensor:
    """Who may look at whom: bool (R, 1, t n + m, t n + m), for t = `together` targets of n tokens and their prompt.

    Args:
        text: which tokens of the targets are no padding, bool (R, t n); prompt: the same, (R, m).
    """
    length, rest = text.shape[1], prompt.shape[1]
    lower = torch.ones(length // together, length // together, dtype=torch.bool).tril()
    allowed = torch.zeros(length + rest, length + rest, dtype=torch.bool)
    allowed[:length, :length] = torch.block_diag(*[lower] * together)
    allowed[:, length:] = True
    allowed = allowed & torch.cat([text, prompt], 1)[:, None]
    # A row of padding must look somewhere: softmax over nothing is NaN.
    return (allowed | torch.eye(length + rest, dtype=torch.bool))[:, None]


def regions(boxes: list[tuple[int, int, int, int]], side: int) -> Tensor:
    """bool (B, side, side): True inside each box x0 y0 x1 y1 (x1 and y1 outside)."""
    table = torch.tensor(boxes)
    along = torch.arange(side)
    inside = (along >= table[:, [0, 1], None]) & (along < table[:, [2, 3], None])  # (B, 2, side): x, y
    return inside[:, 1, :, None] & inside[:, 0, None, :]
