"""LLaVA from transformers' own class: a frozen CLIP tower, a projector, a small Llama; and how a dialogue is encoded.

The same functions work on `llava-hf/llava-1.5-7b-hf` and on the tiny one that is trained here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError
from mmlib.formats.llava import IMAGE_MARK, Turn
from mmlib.models.clip import checkpoint_source

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import CLIPModel, LlavaForConditionalGeneration, PreTrainedTokenizerBase

# Second-last, as LLaVA does, and the first: a patch's place is readable there (99.9 %, after that 91 and 72 %).
FEATURE_LAYERS = (0, -2)
IGNORED = -100  # label of tokens without a loss


def build_llava(
    clip: CLIPModel, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any], seed: int
) -> LlavaForConditionalGeneration:
    """LLaVA on the tower of `clip` (frozen; `FEATURE_LAYERS`, without CLS), projector and language model untrained."""
    import torch
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    vision, width = clip.config.vision_config, settings["width"]
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=settings["layers"], num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), tie_word_embeddings=True,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_MARK), vision_feature_layer=list(FEATURE_LAYERS),
        vision_feature_select_strategy="default", image_seq_length=(vision.image_size // vision.patch_size) ** 2,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    tower = {name.removeprefix("vision_model."): value for name, value in clip.vision_model.state_dict().items()}
    own = {name.removeprefix("vision_model."): name for name in model.model.vision_tower.state_dict()}
    model.model.vision_tower.load_state_dict({own[name]: value for name, value in tower.items()})
    return freeze_tower(model)


def open_llava(source: Path | str, revision: str | None = None) -> LlavaForConditionalGeneration:
    """LLaVA from a safetensors folder, or from the hub by name and 40-hex revision; the tower is frozen."""
    import torch
    from transformers import LlavaForConditionalGeneration

    where = checkpoint_source(source, revision)
    model = LlavaForConditionalGeneration.from_pretrained(**where, dtype=torch.float32, use_safetensors=True)
    return freeze_tower(model.eval())


def freeze_tower(model: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """No gradients for the vision tower, in every stage, as LLaVA-1.5 does."""
    model.model.vision_tower.requires_grad_(False)
    return model


def encode_turns(
    tokenizer: PreTrainedTokenizerBase, turns: tuple[Turn, ...], image_tokens: int
) -> tuple[list[int], list[int]]:
    """Ids and labels of `<bos> user … assistant … <eos> user …`; only answers and their ends have labels.

    The picture's mark becomes `image_tokens` tokens, which the model replaces by the projected patches.
    """
    ids, labels = [tokenizer.bos_token_id], [IGNORED]
    for turn in turns:
        if turn.speaker == "human":
            text = turn.text.replace(IMAGE_MARK, " ".join([IMAGE_MARK] * image_tokens))
            part = tokenizer(f"user {text} assistant", add_special_tokens=False).input_ids
            labels += [IGNORED] * len(part)
        else:
            part = [*tokenizer(turn.text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            labels += part
        ids += part
    return ids, labels


def pad_batch(rows: list[tuple[list[int], list[int]]], pad: int, left: bool = False) -> dict[str, Tensor]:
    """Rows of (ids, labels) -> input_ids, attention_mask, labels (N, L)."""
    import torch

    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for i, (row, wanted) in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place], labels[i, place], mask[i, place] = torch.tensor(row), torch.tensor(wanted), 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answer(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    pixel_values: Tensor,
    questions: list[str],
    new_tokens: int,
    batch: int = 100,
) -> list[str]:
    """Greedy answers to one question about one picture each.

    Args:
        pixel_values: (N, 3, H, W).
    Raises:
        UserError: numbers of pictures and questions differ.
    """
    import torch

    if len(questions) != len(pixel_values):
        raise UserError(f"{len(pixel_values)} pictures and {len(questions)} questions", "pass one picture a question")
    count, answers = model.config.image_seq_length, [""] * len(questions)
    rows = [encode_turns(tokenizer, (Turn("human", f"{IMAGE_MARK}\n{q}"),), count) for q in questions]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i][0]), i))
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        made = pad_batch([rows[i] for i in part], tokenizer.pad_token_id, left=True)
        made.pop("labels")
        with torch.inference_mode():
            out = model.generate(**made, pixel_values=pixel_values[part], max_new_tokens=new_tokens, do_sample=False)
        for i, row in zip(part, out[:, made["input_ids"].shape[1] :], strict=True):
            answers[i] = tokenizer.decode(row, skip_special_tokens=True).strip()
    return answers


def patches(model: LlavaForConditionalGeneration, images: np.ndarray) -> Tensor:
    """What the projector sees: float32 (N, P, D) of the tower's chosen layers side by side, without CLS."""
    import torch

    from mmlib.models.clip import pixels

    with torch.inference_mode():
        layers = model.model.vision_tower(pixels(images), output_hidden_states=True).hidden_states
    taken = model.config.vision_feature_layer
    return torch.cat([layers[i][:, 1:] for i in ([taken] if isinstance(taken, int) else taken)], dim=-1)
