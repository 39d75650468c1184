"""The subject and what it is measured on: one model, held-out text, ability tasks; shared by the study's parts.

"16-bit" is the packaged model after dequantization, every weight rounded to 16 bits (`stored`); sums run in float32,
so that the noise of 16-bit sums is never mistaken for quantization loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import text
from mmlib.metrics import continuations, lm
from mmlib.models.lm import open_checkpoint
from mmlib.quantization import abilities, stored
from mmlib.quantization.model import linears

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE = "16-bit"
CHECKPOINT = "results/lm/checkpoint"
TEST_SEED = 20_000  # the test windows are one fixed draw; calibration seeds vary on another package's text


@dataclass(frozen=True)
class Bench:
    """What every variant of a run shares: model, test windows, tasks, reference states."""

    model: Any
    tokenizer: Any
    original: dict[str, Tensor]  # the 16-bit linears in float16, which holds them exactly in half of the memory
    windows: Tensor  # (W, L) test token ids
    reference: Tensor  # (W, L, V) log-probabilities of the 16-bit model
    tasks: tuple[abilities.Task, ...]

    def fresh_model(self, names: Iterable[str] | None = None) -> Any:
        """The model with its 16-bit linears put back; `names`: only these, where all others are about to be set."""
        parts = linears(self.model)
        for name in parts if names is None else names:
            parts[name].weight.data = self.original[name].float()
        return self.model

    def text_scores(self, model: Any) -> dict[str, list[float]]:
        """Per window: nll, kl to the 16-bit model, top-1 agreement."""
        return _rounded(lm.window_metrics(model, self.windows, self.reference))

    def icl_scores(self, model: Any, shots: int) -> dict[str, list[float]]:
        """Per item of all tasks in order: ranking, exact, logprob (`continuations.score`)."""
        result: dict[str, list[float]] = {}
        for task in self.tasks:
            scores = continuations.score(model, self.tokenizer, task.prefix(shots), task.questions())
            for metric, values in _rounded(scores).items():
                result.setdefault(metric, []).extend(values)
        return result


def _rounded(scores: dict[str, list[float]]) -> dict[str, list[float]]:
    return {metric: [round(value, 6) for value in values] for metric, values in scores.items()}


@lru_cache(maxsize=1)
def open_bench(root: Path, settings_json: str) -> Bench:
    """Load once per process. `settings_json` holds the stage's parameters (a string, to be hashable)."""
    import json

    import torch

    # One thread: with two, the order of float32 sums, and with it the last bits of every result, depends on
    # how many cores happen to be free; parallelism comes from the shards.
    torch.set_num_threads(1)
    settings = json.loads(settings_json)
    model, tokenizer = open_checkpoint(root / CHECKPOINT)
    stored.at_16_bits(model)
    windows = test_windows(tokenizer, settings, root)
    tasks = tuple(task_list(settings, root))
    original = {name: linear.weight.data.half() for name, linear in linears(model).items()}
    return Bench(model, tokenizer, original, windows, lm.log_probabilities(model, windows), tasks)


def task_list(settings: dict[str, Any], root: Path) -> list[abilities.Task]:
    """The ability tasks of a run."""
    size = {"items": settings["icl_items"], "shots": settings["shots"], "choices": settings["choices"]}
    return [abilities.build(name, root, **size) for name in sorted(settings["tasks"])]


def test_windows(tokenizer: Any, settings: dict[str, Any], root: Path) -> Tensor:
    """Held-out text, (text_windows, text_tokens) token ids."""
    documents = text.documents(root, "test")
    return text.windows(tokenizer, documents, settings["text_windows"], settings["text_tokens"], TEST_SEED)


def calibration_windows(tokenizer: Any, settings: dict[str, Any], seed: int, root: Path) -> Tensor:
    """Calibration text of one seed, (calibration_windows, calibration_tokens) token ids."""
    count, tokens = settings["calibration_windows"], settings["calibration_tokens"]
    return text.windows(tokenizer, text.documents(root, "calibration"), count, tokens, seed)
