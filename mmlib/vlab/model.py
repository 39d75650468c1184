"""The whole model: encoders, the multimodal encoder, and the three losses.

    L = a L_vtc + b L_pair + c L_match + L_mlm + L_ulm + L_qa   (questions: unified LM with the question as prompt)

VTC contrasts CLIP's text feature with the mean over frames of the projected CLS; L_pair does so within a clip and its
reversal, the hardest negative; L_match does the same through the multimodal encoder, with a head on the text's first
token (COSA's ITM), for whoever cannot see order in an average over frames. MLM and ULM predict masked words with a
bidirectional and a causal mask. Formulas: the group's base code, VALOR and COSA; that VLAB uses them is a
reconstruction. With both branches the similarity is a <t, v> + (1 - a) <t, i>, a learned, from 0.5.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.errors import UserError
from mmlib.models.cross_attention import MultimodalEncoder, VisualTokens
from mmlib.vlab.adapters import VideoEncoder, freeze

if TYPE_CHECKING:
    from transformers import CLIPModel

LAYERS, HEADS = 2, 4  # of the multimodal encoder
# Form of blending, then what its `video` and `image` slots are filled with.
BRANCHES = {
    "image": ("single", {"image": "image"}),
    "video": ("single", {"video": "video"}),
    "concat": ("concat", {"video": "video", "image": "image"}),
    "parallel": ("parallel", {"video": "video", "image": "image"}),
    "stacked_vi": ("stacked_vi", {"video": "video", "image": "image"}),
    "stacked_iv": ("stacked_iv", {"video": "video", "image": "image"}),
    "video+video": ("parallel", {"video": "video", "image": "video"}),
    "image+image": ("parallel", {"video": "image", "image": "image"}),
    "video+other": ("parallel", {"video": "video", "image": "other"}),  # `other`: adapted as well, from another seed
}
# Noise on the second cross-attention where stage 2 starts, as a share of every matrix's own deviation. Both start from
# stage 1's one; equal start, equal keys and equal gradients would stay equal for ever (review: difference 0.0 after
# ten steps of `video+video`), and the control would be one branch with twice the parameters on paper.
TWIN_NOISE = 0.5
# The group has 1.5 L_vtc, and L_vtm with hard negatives at 1 (COSA). The hardest negative of a clip is known here: its
# reversal. Pilot, one seed: 275 steps of VTC taught no order (0.50 of pairs right); weighted like this, and alone
# before words are predicted, order is learned within 200. MLM is there, and off: no task that is measured fills masks.
RATIOS = {"vtc": 0.3, "pair": 2.0, "match": 0.0, "mlm": 0.0, "ulm": 0.5, "qa": 1.0}


@dataclass(frozen=True)
class Arm:
    """One variant. `branches` is a key of `BRANCHES`; `blocks` None: adapters in every block."""

    adapter: str = "none"
    blocks: tuple[int, ...] | None = None
    hidden: int = 32
    position: str = "attention"
    freeze: str = "all_but_adapter"
    branches: str = "video"
    pool: bool = False
    frame_embedding: bool = True


class Vlab(nn.Module):
    """Image and video encoder from one CLIP, and the multimodal encoder.

    Args:
        clip: copied, so that arms can share it; the copy's vision model becomes the video encoder.
    """

    def __init__(self, clip: CLIPModel, arm: Arm, pad: int, seed: int) -> None:
        super().__init__()
        if arm.branches not in BRANCHES:
            raise UserError(f"unknown branches `{arm.branches}`", f"choose from: {', '.join(BRANCHES)}")
        torch.manual_seed(seed)
        clip = copy.deepcopy(clip)
        blend, self.slots = BRANCHES[arm.branches]
        self.arm, self.pad = arm, pad
        width = clip.config.vision_config.hidden_size
        blocks = None if arm.blocks is None else list(arm.blocks)
        self.video = VideoEncoder(clip.vision_model, arm.adapter, blocks, arm.hidden, arm.position)
        freeze(self.video, arm.freeze)
        self.text, self.text_projection = clip.text_model, clip.text_projection
        self.projection = nn.ModuleDict(
            {name: copy.deepcopy(clip.visual_projection) for name in sorted({*self.slots.values()} - {"other"})}
        )
        self.scale, self.share = clip.logit_scale, nn.Parameter(torch.tensor(0.5))
        self.tokens = nn.ModuleDict(
            {name: VisualTokens(width, width, arm.pool, arm.frame_embedding) for name in self.slots}
        )
        self.fusion = MultimodalEncoder(clip.config.text_config.vocab_size, width, LAYERS, HEADS, blend)
        self.match = nn.Linear(width, 1, bias=False)  # only differences count

    @property
    def start(self) -> int:
        """Blocks below this one are frozen and work frame by frame: their features are made once (`lower`)."""
        trainable = any(p.requires_grad for p in self.video.vision.parameters())
        return 0 if trainable else self.video.first

    def streams(self, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keys for the cross-attention. seen: name of a branch -> tokens of its encoder (B, T, N + 1, D)."""
        return {slot: self.tokens[slot](seen[branch]) for slot, branch in self.slots.items()}

    def similarity(self, seen: dict[str, Tensor], ids: Tensor, attention: Tensor) -> Tensor:
        """Cosine of every text (R, n) with every clip: (R, B)."""
        said = self.text_projection(self.text(input_ids=ids, attention_mask=attention).pooler_output)
        said = functional.normalize(said, dim=-1)
        scores = {
            branch: said @ functional.normalize(project(seen[branch][:, :, 0].mean(1)), dim=-1).T
            for branch, project in sorted(self.projection.items())
        }
        if len(scores) == 1:
            return next(iter(scores.values()))
        return self.share * scores["video"] + (1 - self.share) * scores["image"]

    def word_scores(self, seen: dict[str, Tensor], text: Tensor, prompt: Tensor, causal: Tensor) -> Tensor:
        """(B, Q, n, V) over the text tokens."""
        return self.fusion.logits(self.fusion(text, prompt, causal, self.pad, self.streams(seen)))

    def match_scores(self, seen: dict[str, Tensor], caption: Tensor) -> Tensor:
        """How well clips (B) fit their own caption, and that of their neighbour (its reversal): (B, 2).

        Args:
            caption: ids (B, l).
        """
        texts = torch.stack([caption, caption[neighbours(caption)]], 1)  # (B, 2, l)
        both_ways = torch.zeros(texts.shape[:2], dtype=torch.bool, device=texts.device)
        # The prompt is `<bos>` alone: nothing is asked.
        read = self.fusion(texts, texts[..., :1], both_ways, self.pad, self.streams(seen))
        return self.match(read[:, :, 0])[..., 0]

    def forward(
        self, text: Tensor, prompt: Tensor, causal: Tensor, labels: Tensor, weight: Tensor,
        caption: Tensor | None = None, caption_mask: Tensor | None = None, vtc: float = 0.0, pair: float = 0.0,
        match: float = 0.0, lower: Tensor | None = None, video: Tensor | None = None, image: Tensor | None = None,
        other: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The loss of one batch.

        Args:
            text, prompt, labels: ids (B, Q, n), (B, Q, m), (B, Q, n); causal, weight: (B, Q). If all weights are zero,
                no word is predicted.
            caption, caption_mask: CLIP's text input (B, l), clip by clip; vtc, pair, match: ratios of its losses. For
                `pair` and `match` items 2i and 2i + 1 are a clip and its reversal.
            lower: tokens that enter block `self.start` of the video encoder; or
            video, image, other: tokens that left an encoder which is frozen.
        """
        seen = {name: x for name, x in (("video", video), ("image", image), ("other", other)) if x is not None}
        if lower is not None:
            seen["video"] = self.video(lower, self.start)
        loss = torch.zeros(())
        if weight.any():
            loss = word_loss(self.word_scores(seen, text, prompt, causal), labels, weight)
        if vtc or pair:
            scores = self.similarity(seen, caption, caption_mask) * self.scale.exp()
            loss = loss + vtc * contrastive_loss(scores) + (pair * pair_loss(scores) if pair else 0.0)
        if match:
            loss = loss + match * match_loss(self.match_scores(seen, caption))
        return {"loss": loss}


def contrastive_loss(scores: Tensor) -> Tensor:
    """Both directions, mean: -1/2B sum_i [log softmax_j s_ij + log softmax_j s_ji] at j = i; scores (B, B)."""
    right = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


def pair_loss(scores: Tensor) -> Tensor:
    """`contrastive_loss` within every 2 x 2 block of an item and its neighbour, mean over blocks; scores (B, B)."""
    number, neighbour = torch.arange(len(scores), device=scores.device), neighbours(scores)
    own, other = scores[number, number], scores[number, neighbour]  # item's text with its clip, with the reversal
    crossed = scores[neighbour, number]  # the reversal's text with the item's clip
    return (functional.softplus(other - own) + functional.softplus(crossed - own)).mean() / 2


def neighbours(rows: Tensor) -> Tensor:
    """Numbers of the other item of each pair: 1, 0, 3, 2, …"""
    return torch.arange(len(rows), device=rows.device) ^ 1


def match_loss(scores: Tensor) -> Tensor:
    """`pair_loss` of scores (B, 2): a clip with its own text, and with that of its reversal."""
    own, crossed = scores.T
    other = crossed[neighbours(scores)]  # the item's own text with its reversal
    return (functional.softplus(other - own) + functional.softplus(crossed - own)).mean() / 2


def word_loss(scores: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean cross-entropy of a sequence's masked words, weighted over sequences.

    Args:
        scores: (B, Q, n, V); labels: (B, Q, n), -100 where nothing is asked; weight: (B, Q).
    """
    each = functional.cross_entropy(scores.flatten(0, 2), labels.flatten(), reduction="none").view_as(labels)
    asked = (labels >= 0).sum(-1).clamp(min=1)
    return (weight * each.sum(-1) / asked).sum()


def reader_state(model: Vlab) -> dict[str, Tensor]:
    """What `learn_to_read` trained: multimodal encoder and visual tokens."""
    return {name: value for name, value in model.state_dict().items() if name.startswith(("fusion.", "tokens."))}


def adopt_reader(model: Vlab, state: dict[str, Tensor]) -> None:
    """Start a model of one stream from a trained reader, in place; an arm without frame embedding has none to take."""
    own = model.state_dict()
    model.load_state_dict({**own, **{name: value for name, value in state.items() if name in own}})


def blended(stage1: Vlab, clip: CLIPModel, branches: str, seed: int) -> Vlab:
    """A stage-2 model that starts from stage 1: same encoders, words and layers; every cross-attention from stage 1's.

    Where there are two, the second starts beside the first (`TWIN_NOISE`), alike in every form.

    Args:
        clip: the CLIP that stage 1 started from, for the image branch's projection.
    """
    from dataclasses import replace

    model = Vlab(clip, replace(stage1.arm, branches=branches), stage1.pad, seed)
    old = stage1.state_dict()
    for name in model.state_dict():
        if name.startswith(("fusion.layers", "tokens.")):
            # `….cross.video.query.weight` and `tokens.image.frame` have one origin, whatever the stream is called.
            source = re.sub(r"(cross|cross_norm)\.(video|image|shared)", r"\1.shared", name)
            old.setdefault(name, stage1.state_dict()[re.sub(r"^tokens\.(video|image)", "tokens.video", source)])
    old["projection.image.weight"] = clip.visual_projection.weight.detach().clone()
    model.load_state_dict({name: old[name] for name in model.state_dict()})
    part_twins(model, TWIN_NOISE, seed)
    model.video.requires_grad_(False)
    return model.eval()


def part_twins(model: Vlab, noise: float, seed: int) -> None:
    """Move the second cross-attention of every layer, in place, by `noise` times the deviation of each of its parts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.fusion.layers:
            for weight in layer.cross["image"].parameters() if "image" in layer.cross else ():
                weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
