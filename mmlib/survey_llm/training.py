"""What the experiments with small models share: bytes of real text, training by the Trainer, loss, writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Generator, Tensor, nn

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


def train(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, batch: int, learning_rate: float, seed: int, **options: Any
) -> None:
    """One pass over rows of inputs and labels (R, T), in order; further `options` are those of `fit`."""
    from mmlib.models.fit import fit

    def collate(items: list[int]) -> dict[str, Tensor]:
        return {"input_ids": inputs[items], "labels": labels[items]}

    steps = len(inputs) // batch
    fit(model, collate, name="train", steps=steps, batch=batch, learning_rate=learning_rate, seed=seed, **options)


def read(model: nn.Module, source: np.ndarray, amount: int, *, batch: int, learning_rate: float, seed: int) -> None:
    """Train on `amount` bytes in windows of LENGTH, drawn from the seed."""
    rows = windows(source, amount // LENGTH, LENGTH, seed=seed + 1)
    train(model, rows[:, :-1], rows[:, 1:], batch=batch, learning_rate=learning_rate, seed=seed)


def nats(model: nn.Module, rows: Tensor, last: int = 0, **options: float) -> Tensor:
    """(R, last) surprise of the `last` tokens of each row (0: of all but the first); `options` go to the model."""
    import torch

    last = last or rows.shape[1] - 1
    with torch.inference_mode():
        logits = model(rows[:, :-1], **options)["logits"][:, -last:]
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, -last:], reduction="none")


def write(
    model: nn.Module,
    tokens: Tensor,
    places: range,
    draw: Generator | None = None,
    temperature: float = 1.0,
    among: Callable[[int], tuple[int, int | None]] = lambda at: (0, None),
) -> Tensor:
    """Tokens (R, T) whose places the model filled, one after the other: greedily, or sampled with `draw`.

    Args:
        places: in order; the last ones may lie beyond T.
        among: place -> first token that can stand there, and the first that cannot.
    """
    import torch

    past, seen = {}, 0
    with torch.inference_mode():
        for at in places:
            low, high = among(at)
            logits = model(tokens[:, seen:at], past=past)["logits"][:, -1, low:high]
            seen = at
            chances = (logits / temperature).softmax(-1)
            said = logits.argmax(-1, True) if draw is None else torch.multinomial(chances, 1, generator=draw)
            tokens = torch.cat([tokens[:, :at], said + low, tokens[:, at + 1 :]], 1)
    return tokens
