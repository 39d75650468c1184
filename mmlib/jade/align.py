"""Before training: what a cell's token says shall point to the embeddings of the words for what is in the cell.

It stands for the group's own vision-language pre-training, from which generator and filter start (their weights were
not released): seconds here, and look-ups are learned several times sooner than from an arbitrary projection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib.jade.language import drawn_nouns
from mmlib.jade.model import IGNORED, Jade
from mmlib.jade.tokens import Words
from mmlib.models.clip import epochs
from mmlib.models.optimizer import build_muon
from mmlib.world.nouns import BACKGROUNDS, CELLS, COLOURS, SIZES
from mmlib.world.scenes import Scene

if TYPE_CHECKING:
    from torch import Tensor

SHARPNESS = 16  # of the softmax over cosines
BATCH = 128
RATES = (0.002, 0.02)  # AdamW, Muon
GROUPS = {"where": CELLS, "noun": drawn_nouns(), "colour": tuple(COLOURS), "size": tuple(SIZES), "ground": BACKGROUNDS}


def align(model: Jade, words: Words, scenes: list[Scene], features: Tensor, steps: int, seed: int) -> dict[str, float]:
    """Train the projection of visual tokens alone; share of words found per group, on the same scenes.

    Args:
        features: (scenes, N + 1, 2 W) of the frozen CLIP, without a box; token 1 + c is cell c.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    table = normalize(model.word_embed.weight.detach(), dim=-1)
    groups = [table[[words.number[word] for word in group]] for group in GROUPS.values()]  # (words, D) each
    right, project = targets(scenes), model.tokens.project
    optimizer = build_muon(project, *RATES, 0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    order = epochs(len(scenes), steps * BATCH, seed)
    for step in range(steps):
        part = order[step * BATCH : (step + 1) * BATCH]
        scores = _scores(project(features[part, 1:]), groups)
        loss = sum(cross_entropy(s.flatten(0, 1), right[part][..., g].flatten(), ignore_index=IGNORED)
                   for g, s in enumerate(scores))  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        return _found(_scores(project(features[:, 1:]), groups), right)


def _scores(tokens: Tensor, groups: list[Tensor]) -> list[Tensor]:
    """Cosines of tokens (B, 9, D) with the words of each group."""
    from torch.nn.functional import normalize

    unit = SHARPNESS * normalize(tokens, dim=-1)
    return [unit @ words.T for words in groups]


def targets(scenes: list[Scene]) -> Tensor:
    """(N, 9, 5): number of a cell's word within every group; -100 where the cell holds nothing that has one."""
    import torch

    made = torch.full((len(scenes), len(CELLS), len(GROUPS)), IGNORED)
    places = {name: {word: n for n, word in enumerate(group)} for name, group in GROUPS.items()}
    for i, scene in enumerate(scenes):
        made[i, :, 0] = torch.arange(len(CELLS))
        made[i, :, 4] = places["ground"][scene.background]
        for thing in scene.objects:
            made[i, thing.cell, 1:4] = torch.tensor([places[name][getattr(thing, name)] for name in list(GROUPS)[1:4]])
    return made


def _found(scores: list[Tensor], right: Tensor) -> dict[str, float]:
    shares: dict[str, Any] = {}
    for g, (name, score) in enumerate(zip(GROUPS, scores, strict=True)):
        asked = right[..., g] != IGNORED
        shares[name] = round((score.argmax(-1)[asked] == right[..., g][asked]).float().mean().item(), 6)
    return shares
