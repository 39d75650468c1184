"""The plain way to decode, for comparison and as a test's oracle: everything is encoded again at every token.

It goes through the path that training uses, knows neither cache nor shared pictures, and is what a first script does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmlib.jade.decoding import MOST
from mmlib.jade.model import Jade
from mmlib.jade.tokens import Words


def greedy(
    model: Jade, words: Words, pixels: Tensor, region: Tensor | None, prompts: Tensor, *, end: int,
    prefix: list[list[int]] | None = None, most: int = MOST,
) -> list[list[int]]:  # fmt: skip
    """Greedy texts of R rows behind their prefixes, each row with a picture of its own.

    Args:
        pixels: (R, 3, H, W), region: bool (R, H, W), prompts: (R, m). Prefixes are of one length: `[CLS]` by default.
    """
    rows = len(prompts)
    said = prefix or [[words.cls] for _ in range(rows)]
    start, alive = len(said[0]), [True] * rows
    for _ in range(most):
        target = torch.tensor([[*row, words.mask] for row in said])
        with torch.inference_mode():
            seen = model.see(model.look.patches(pixels), region)
            h = model.states(seen, target[:, None], prompts[:, None])
            chosen = model.logits(h[:, 0, -1]).argmax(-1).tolist()
        alive = [on and token != end for on, token in zip(alive, chosen, strict=True)]
        said = [[*row, token if on else words.sep] for row, token, on in zip(said, chosen, alive, strict=True)]
        if not any(alive):
            break
    return [_until(row[start:], (end, words.sep)) for row in said]


def _until(ids: list[int], ends: tuple[int, ...]) -> list[int]:
    return next((ids[:place] for place, token in enumerate(ids) if token in ends), ids)
