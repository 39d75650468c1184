"""Train a language model on texts: Hugging Face Trainer with the few settings that our studies vary."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Trainer and PEFT look for bitsandbytes, which complains about a kernel that no study uses.
logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)


def train_lm(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    warmup: int = 50,
) -> float:
    """Train `model` in place on next-token prediction over whole texts (AdamW, cosine schedule); eval mode after.

    Parameters with requires_grad off stay as they are. Texts are visited in an order drawn from `seed`.

    Returns:
        Mean training loss in nats per token.
    """
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    # A plain list: our steps take milliseconds, and reading rows out of a table takes some of them.
    data = [{"input_ids": row} for row in tokenizer(texts, add_special_tokens=False).input_ids]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=learning_rate, seed=seed,
            lr_scheduler_type="cosine", warmup_steps=min(warmup, steps // 4), adam_beta2=0.98, weight_decay=0.01,
            max_grad_norm=1.0, save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
            dataloader_pin_memory=False, remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, train_dataset=data, data_collator=partial(left_padded, tokenizer.pad_token_id)
        )
        trainer.remove_callback(PrinterCallback)  # it prints run times, which no notebook may hold
        result = trainer.train()
    model.eval()
    return result.training_loss


def left_padded(pad: int, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """A batch as `DataCollatorForLanguageModeling` makes it with a tokenizer that pads on the left.

    That one takes an eighth of the training time of our smallest models.
    """
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    missing = [width - len(row["input_ids"]) for row in rows]
    ids = torch.tensor([[pad] * short + row["input_ids"] for short, row in zip(missing, rows, strict=True)])
    mask = torch.tensor([[0] * short + [1] * (width - short) for short in missing])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(ids == pad, -100)}
