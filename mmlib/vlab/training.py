"""Both stages through `mmlib.models.fit.fit`: feature adapting, then feature blending.

Adapters must learn several times faster than what surrounds them, CLIP several times slower (pilot: with one common
rate no motion is learned in hundreds of steps); an arm without adapters can learn order in its frame embeddings alone,
so there the pace is theirs. `fit` has one learning rate, so a part that shall learn r times as
fast is reparametrised as anchor + r (raw - anchor): under Adam, whose steps do not depend on the gradient's size, raw
moving at rate l is the part moving at rate r l.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmlib.models.clip import MAX_LOGIT_SCALE
from mmlib.models.fit import fit
from mmlib.vlab.batches import Sequences, still_collate, training_collate
from mmlib.vlab.data import Pairs, take

if TYPE_CHECKING:
    from mmlib.vlab.model import Vlab


PHASE_SEED = 1000  # a phase draws clips and masks of its own


class Pace(nn.Module):
    """raw -> anchor + ratio (raw - anchor)."""

    def __init__(self, anchor: Tensor, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.register_buffer("anchor", anchor.detach().clone())

    def forward(self, raw: Tensor) -> Tensor:
        """The parameter that the model uses."""
        return self.anchor + self.ratio * (raw - self.anchor)

    def right_inverse(self, value: Tensor) -> Tensor:
        """The raw parameter of a value."""
        return self.anchor + (value - self.anchor) / self.ratio


@contextmanager
def paces(ratios: dict[nn.Module, float]) -> Iterator[None]:
    """Within: the trainable parameters of each module learn at `ratio` times the learning rate; names stay."""
    paced: list[tuple[nn.Module, str]] = []
    for top, ratio in ratios.items():
        for module in [*top.modules()]:
            for name, value in [*module.named_parameters(recurse=False)]:
                if value.requires_grad and ratio != 1:
                    parametrize.register_parametrization(module, name, Pace(value, ratio))
                    paced.append((module, name))
    try:
        yield
    finally:
        for module, name in paced:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def sees_order(model: Vlab) -> nn.Module:
    """Adapters, or where there are none (or they are frozen) the visual tokens with their frame embeddings."""
    adapters = model.video.adapters
    return adapters if any(p.requires_grad for p in adapters.parameters()) else model.tokens


def phases(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """`settings` of each phase, which has a schedule of its own: contrastive losses alone, then all.

    Together from the start, the words' gradients drown what tells a clip from its reversal. Arms without contrastive
    losses train on words for as many steps.
    """
    alone = {"mlm": 0.0, "ulm": 0.0, "qa": 0.0}
    ratios = settings["ratios"]
    first = {**settings, "steps": settings["contrastive_steps"], "ratios": {**ratios, **alone}}
    if not settings["contrastive_steps"]:
        return [settings]
    if not (ratios["vtc"] or ratios["pair"] or ratios["match"]):
        first["ratios"] = ratios
    return [first, settings]


def train(
    model: Vlab,
    sequences: Sequences,
    pairs: Pairs,
    features: dict[str, Tensor],
    settings: dict[str, Any],
    seed: int,
    scratch: Path | None = None,
) -> list[dict[str, float]]:
    """One stage, in place; the learning curve.

    Args:
        features: as in `seer`: `lower` trains the video encoder, `video` and `image` left encoders that are frozen.
        settings: `name`, `steps`, `batch`, `learning_rate`, `muon_learning_rate`, `pace` (of what can learn
            order: `sees_order`), `clip_pace`, `questions`, `ratios`, `contrastive_steps`.
    """
    look = seer(features, frames=settings.get("frames"))

    def see(items: list[int]) -> dict[str, Any]:
        with torch.no_grad():
            model.scale.clamp_(0, MAX_LOGIT_SCALE)
        return look(items)

    model.train()
    curve: list[dict[str, float]] = []
    with paces({sees_order(model): settings["pace"], model.video.vision: settings["clip_pace"]}):
        for number, part in enumerate(phases(settings)):
            collate = training_collate(sequences, pairs, see, part, seed + PHASE_SEED * number)
            done = fit(model, collate, name=settings["name"], steps=part["steps"], batch=settings["batch"],
                       learning_rate=settings["learning_rate"], muon_learning_rate=settings["muon_learning_rate"],
                       seed=seed, scratch=scratch and scratch.with_name(f"{scratch.name}-{number}"))  # fmt: skip
            before = curve[-1]["step"] if curve else 0
            curve += [{**row, "step": row["step"] + before} for row in done]
    return curve


def learn_to_read(
    model: Vlab,
    sequences: Sequences,
    pairs: Pairs,
    tokens: Tensor,
    settings: dict[str, Any],
    seed: int,
    scratch: Path | None = None,
) -> list[dict[str, float]]:
    """The multimodal encoder alone, on single frames of a frozen CLIP: stands in for the BERT that VLAB starts from.

    From random weights it takes hundreds of steps to find a thing's name in the tokens, and all arms would spend
    stage 1 on that instead of on time. One frame has an eighth of the tokens of a clip, and all arms share the result.

    Args:
        tokens: of the plain image encoder, (clips, T, N + 1, D).
        settings: as in `train`; the contrastive loss is left to CLIP.
    """
    options = {**settings, "ratios": {**settings["ratios"], "vtc": 0.0, "pair": 0.0, "match": 0.0}}
    model.requires_grad_(False)
    for part in (model.fusion, model.tokens):
        part.requires_grad_(True)
    model.train()
    return fit(model, still_collate(sequences, pairs, tokens, options, seed), name=settings["name"],
               steps=settings["steps"], batch=settings["batch"], learning_rate=settings["learning_rate"],
               muon_learning_rate=settings["muon_learning_rate"], seed=seed, scratch=scratch)  # fmt: skip


def seer(features: dict[str, Tensor], order: str = "forward", frames: int | None = None) -> Any:
    """Items of `Pairs` -> what the model sees of them.

    Args:
        features: `lower` and `image` were made frame by frame, so that a partner's are the clip's, flipped: one row
            per clip. `video` and `other` mix frames: one row per item.
    """

    def see(items: list[int]) -> dict[str, Tensor]:
        mixed = {"video", "other"}
        return {name: x[items] if name in mixed else take(x, items, order, frames) for name, x in features.items()}

    return see


def encode(model: Vlab, lower: Tensor, order: str = "forward", frames: int | None = None, batch: int = 64) -> Tensor:
    """Tokens that leave the video encoder, without gradients: (2 x clips, T, N + 1, D), a row per item."""
    items, parts = list(range(2 * len(lower))), []
    with torch.inference_mode():
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            parts.append(model.video(take(lower, part, order, frames), model.start).clone())
    return torch.cat(parts)
