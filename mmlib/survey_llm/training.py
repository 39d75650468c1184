"""What the experiments with small models share: bytes of real text, training by the Trainer, held-out loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlib import text

if TYPE_CHECKING:
    from torch import Tensor

    from mmlib.survey_llm.transformer import Decoder

TEST_EVERY = 10  # one document in ten is held out
LENGTH = 64  # bytes of a training window


def byte_text(root: Path, parts: tuple[str, ...] = ("calibration", "test")) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) bytes of the packaged docstrings. Held-out documents that repeat training lines are dropped:
    methods inherit their documentation, which would reward memory.
    """
    documents = [document for part in parts for document in text.documents(root, part)]
    order = np.random.default_rng(0).permutation(len(documents))
    train = [documents[i] for i in order if i % TEST_EVERY]
    seen = {line for document in train for line in _long_lines(document)}
    test = [documents[i] for i in order if i % TEST_EVERY == 0]
    fresh = [document for document in test if np.mean([line in seen for line in _long_lines(document)] or [1]) < 0.1]
    return tuple(np.frombuffer("\n\n".join(part).encode(), np.uint8) for part in (train, fresh))


def _long_lines(document: str) -> list[str]:
    return [line for line in document.split("\n") if len(line) > 30]


def windows(source: np.ndarray, count: int, length: int, seed: int) -> Tensor:
    """(count, length + 1) int64 windows at places drawn from the seed."""
    import torch

    starts = np.random.default_rng(seed).integers(len(source) - length - 1, size=count)
    return torch.from_numpy(source[starts[:, None] + np.arange(length + 1)].astype(np.int64))


def train(model: Decoder, inputs: Tensor, labels: Tensor, *, batch: int, learning_rate: float, seed: int) -> None:
    """One pass over rows of inputs and labels (R, T), in order."""
    from mmlib.models.fit import fit

    def collate(items: list[int]) -> dict[str, Tensor]:
        return {"input_ids": inputs[items], "labels": labels[items]}

    fit(model, collate, name="train", steps=len(inputs) // batch, batch=batch, learning_rate=learning_rate, seed=seed)


def held_out_loss(model: Decoder, rows: Tensor, **options: float) -> np.ndarray:
    """Mean nats per byte of each window (R,); `options` go to the model."""
    import torch

    with torch.inference_mode():
        logits = model(rows[:, :-1], **options)["logits"]
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")
    return loss.mean(1).numpy()
