"""Packaged English for calibration and test: disjoint documents, fixed windows, a leak check.

Calibration text and test text come from different packages, as C4 and WikiText do in the quantization papers.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

DOCSTRINGS = Path("data/text/docstrings.jsonl")
PARTS = {"calibration": ("sklearn", "networkx", "skimage"), "test": ("scipy", "sympy")}
LEAK_SPAN = 48  # tokens; shorter runs are shared boilerplate ("Returns\n-------") in any technical English


def documents(root: Path, part: str) -> list[str]:
    """Docstrings of one part, in file order.

    Args:
        part: `calibration` or `test`.
    """
    if part not in PARTS:
        raise UserError(f"unknown text part `{part}`", f"choose one of: {', '.join(PARTS)}")
    path = root / DOCSTRINGS
    if not path.is_file():
        raise UserError(f"{path} is missing", "run `python -m mmlib fetch`")
    records = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [record["text"] for record in records if record["package"] in PARTS[part]]


def windows(tokenizer: PreTrainedTokenizerBase, texts: list[str], count: int, tokens: int, seed: int) -> Tensor:
    """`count` windows of `tokens` token ids, each the beginning of another randomly drawn document.

    Documents shorter than a window are passed over, so no window crosses a document border.

    Returns:
        int64 tensor (count, tokens).
    """
    import torch

    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    rows: list[list[int]] = []
    for index in order:
        ids = tokenizer(texts[index][: tokens * 12], add_special_tokens=False).input_ids
        if len(ids) >= tokens:
            rows.append(ids[:tokens])
        if len(rows) == count:
            return torch.tensor(rows)
    raise UserError(f"only {len(rows)} documents reach {tokens} tokens, {count} asked for", "ask for fewer or shorter")


def refuse_overlap(calibration: Tensor, test: Tensor, span: int = LEAK_SPAN) -> None:
    """Raise if any run of `span` tokens of the test windows stands in the calibration windows.

    Windows shorter than `span` are compared by their whole length.
    """
    length = min(span, calibration.shape[1], test.shape[1])
    seen = {tuple(row[i : i + length]) for row in calibration.tolist() for i in range(len(row) - length + 1)}
    for number, row in enumerate(test.tolist()):
        if any(tuple(row[i : i + length]) in seen for i in range(len(row) - length + 1)):
            raise UserError(
                f"test window {number} shares {length} tokens with the calibration text",
                "draw calibration text from other documents",
            )
