"""Language-model checkpoints: import from a packaged GGUF or the hub, open from disk, refuse pickles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def import_gguf(path: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Dequantize a GGUF file to a float32 transformers model with its tokenizer.

    transformers undoes the row permutation that GGUF applies to q and k of Llama models; the import check of
    the `lm` stage exists because getting that wrong raises no error, only nonsense.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing", "run `python -m mmlib fetch`")
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
    # The weights are plain float32 now; the marker would make save_pretrained refuse them as "quantized".
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    return model, AutoTokenizer.from_pretrained(**where)


def import_hub(hub_id: str, revision: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The full-precision original from the Hugging Face hub, by a 40-hex commit only."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        culprit = f"hub revision `{revision}` of {hub_id} is not a commit"
        raise UserError(culprit, "set lm.hub_revision to 40 hex digits")
    model = AutoModelForCausalLM.from_pretrained(
        hub_id, revision=revision, dtype=torch.float32, use_safetensors=True
    ).eval()
    return model, AutoTokenizer.from_pretrained(hub_id, revision=revision)


def truncate(model: PreTrainedModel, layers: int) -> None:
    """Keep the first `layers` decoder blocks, in place (smoke profile: same code, a fraction of the time)."""
    present = len(model.model.layers)
    if not 1 <= layers <= present:
        raise UserError(f"lm.layers is {layers} but the model has {present} blocks", f"choose 1 to {present}")
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]


def refuse_pickles(folder: Path | str) -> None:
    """Raise if a checkpoint folder holds a pickle: loading one runs whatever code its author put there."""
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix in PICKLES:
            raise UserError(f"{path} is a pickle, which can run code when loaded", "convert it to .safetensors")


def open_checkpoint(folder: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32, eval) and tokenizer from a safetensors checkpoint on disk."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # one line per shard of weights would drown the stage's own bar
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"no checkpoint in {folder}", "run `make reproduce`")
    refuse_pickles(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str) -> None:
    """Write model and tokenizer as a safetensors checkpoint."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def complete_greedily(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], new_tokens: int, batch: int = 1
) -> list[str]:
    """Greedy answers to user prompts in the model's own chat template, one string per prompt."""
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    return generate(model, tokenizer, texts, new_tokens, batch)


def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], new_tokens: int, batch: int = 1
) -> list[str]:
    """Greedy continuations of texts, in batches padded on the left; texts of similar length share a batch.

    Raises:
        UserError: a text and its continuation do not fit into the model's context.
    """
    import torch

    limit = model.config.max_position_embeddings - new_tokens
    encoded = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    order = sorted(range(len(texts)), key=lambda i: (len(encoded[i]), i))
    if order and len(encoded[order[-1]]) > limit:
        culprit = f"prompt `{texts[order[-1]][:40]}…` has {len(encoded[order[-1]])} tokens, room is for {limit}"
        raise UserError(culprit, "shorten it or ask for fewer new tokens")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    answers = [""] * len(texts)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        width = max(len(encoded[i]) for i in part)
        ids = torch.tensor([[pad] * (width - len(encoded[i])) + encoded[i] for i in part], device=model.device)
        mask = torch.tensor([[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in part])
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask.to(model.device), max_new_tokens=new_tokens, do_sample=False, pad_token_id=pad
            )
        for i, row in zip(part, out[:, width:], strict=True):
            answers[i] = tokenizer.decode(row, skip_special_tokens=True).strip()
    return answers
