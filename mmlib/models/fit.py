"""Training with Hugging Face's Trainer: items in a fixed order, progress with an estimate, resume, the same bits twice.

What is trained on is a function from item numbers to a batch, so that pictures can be drawn when they are needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.models.optimizer import BETAS, build_muon

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

LOG_EVERY = 25  # steps


def fit(
    model: PreTrainedModel,
    collate: Callable[[list[int]], dict[str, Tensor]],
    *,
    name: str,
    steps: int,
    batch: int,
    learning_rate: float,
    muon_learning_rate: float = 0.0,
    seed: int,
    scratch: Path | None = None,
    save_every: int = 200,
    warmup: float = 0.05,
    weight_decay: float = 0.01,
) -> list[dict[str, float]]:
    """Train what has `requires_grad`, in place: cosine schedule, gradients clipped at 1; eval mode after.

    Args:
        collate: item numbers 0 … steps x batch - 1, each used once and in order -> a batch with its labels.
        muon_learning_rate: above 0, Muon trains the matrices of hidden layers, and AdamW all else; at 0 AdamW all.
        scratch: folder for checkpoints; a run that was killed goes on from the last one. None: no checkpoints.

    Returns:
        Learning curve: `step` and mean `loss` since the last entry.
    """
    from transformers import TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    folder = scratch or Path("unused")
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=batch, learning_rate=learning_rate, seed=seed,
        lr_scheduler_type="cosine", warmup_steps=round(warmup * steps), adam_beta2=BETAS[1],
        weight_decay=weight_decay, max_grad_norm=1.0,
        save_strategy="steps" if scratch else "no", save_steps=save_every, save_total_limit=1,
        logging_steps=min(LOG_EVERY, steps), report_to=[], disable_tqdm=True, dataloader_pin_memory=False,
        remove_unused_columns=False, label_names=["labels"],
    )  # fmt: skip
    # None: Trainer's own AdamW, which spares norms and biases from weight decay.
    optimizer = build_muon(model, learning_rate, muon_learning_rate, weight_decay) if muon_learning_rate else None
    trainer = _trainer_class()(model, arguments, train_dataset=range(steps * batch), data_collator=collate,
                               optimizers=(optimizer, None))  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress(name, steps))
    trainer.train(resume_from_checkpoint=_last_checkpoint(scratch))
    model.eval()
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    return [{"step": row["step"], "loss": round(row["loss"], 6)} for row in trainer.state.log_history if "loss" in row]


def _trainer_class() -> type:
    from torch.utils.data import SequentialSampler
    from transformers import Trainer

    class InOrder(Trainer):
        """A Trainer that does not shuffle: the collator decides what item i is."""

        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    return InOrder


def _progress(name: str, steps: int) -> Any:
    from tqdm import tqdm
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        """A bar on stderr: on the terminal, and not in what a notebook keeps."""

        bar: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar = tqdm(total=steps, initial=state.global_step, desc=name, unit="step", mininterval=5)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.update(state.global_step - self.bar.n)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.bar.close()

    return Progress()


def _last_checkpoint(scratch: Path | None) -> str | None:
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(scratch)) if scratch and scratch.is_dir() else None
