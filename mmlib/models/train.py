"""Train a language model on texts: Hugging Face Trainer with the few settings that our studies vary."""

from __future__ import annotations

import logging
import tempfile
from typing import TYPE_CHECKING

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
    from datasets import Dataset, disable_progress_bars
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    disable_progress_bars()
    data = Dataset.from_dict({"input_ids": tokenizer(texts, add_special_tokens=False).input_ids})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=learning_rate, seed=seed,
            lr_scheduler_type="cosine", warmup_steps=min(warmup, steps // 4), adam_beta2=0.98, weight_decay=0.01,
            max_grad_norm=1.0, save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
            dataloader_pin_memory=False,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        trainer = Trainer(model, arguments, train_dataset=data, data_collator=collator)
        trainer.remove_callback(PrinterCallback)  # it prints run times, which no notebook may hold
        result = trainer.train()
    model.eval()
    return result.training_loss
