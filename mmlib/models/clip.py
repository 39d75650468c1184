"""A small CLIP on the world's pictures and tags; the same class opens published checkpoints.

One patch per cell (24 pixels): ten visual tokens make it quick, and every cell has a vector of its own, which is what
LLaVA reads later. A published CLIP has hundreds of smaller patches; nothing here depends on their number.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.models.fit import fit
from mmlib.models.lm import refuse_pickles
from mmlib.world import language
from mmlib.world.render import Renderer
from mmlib.world.scenes import CELL, SIDE, Scene

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import CLIPModel, PreTrainedTokenizerBase

MEAN, DEVIATION = 0.5, 0.25
POSITION_DEVIATION = 0.5  # of initial position embeddings
MAX_LOGIT_SCALE = 4.6052  # log 100: CLIP's own bound on the temperature


def build_clip(tokenizer: PreTrainedTokenizerBase, width: int, layers: int, length: int, seed: int) -> CLIPModel:
    """An untrained CLIP: `layers` blocks of `width` for pictures, two of 128 for texts of up to `length` tokens."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=length, projection_dim=128, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=4,
        image_size=SIDE, patch_size=CELL, projection_dim=128,
    )  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))
    # As large as the patches' own vectors: at the library's 0.02 the place drowns in the content, no layer can tell
    # where a patch was (12 %, one in nine by chance), and a language model on top learns look-ups several times later.
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding.weight, std=POSITION_DEVIATION)
    return model


def open_clip(source: Path | str, revision: str | None = None) -> CLIPModel:
    """CLIP from a safetensors folder, or from the hub by name and 40-hex revision."""
    import torch
    from transformers import CLIPModel

    where = checkpoint_source(source, revision)
    return CLIPModel.from_pretrained(**where, dtype=torch.float32, use_safetensors=True).eval()


def checkpoint_source(source: Path | str, revision: str | None) -> dict[str, Any]:
    """Arguments of `from_pretrained`: a local folder without pickles, or a hub name with a commit."""
    import re

    from mmlib.errors import UserError

    if Path(source).is_dir():
        refuse_pickles(source)
        return {"pretrained_model_name_or_path": str(source), "local_files_only": True}
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        culprit = f"`{source}` is no folder, and as a hub name it lacks a revision of 40 hex digits"
        raise UserError(culprit, "give the path of a checkpoint, or a commit")
    return {"pretrained_model_name_or_path": str(source), "revision": revision}


def pixels(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> normalised float32 (N, 3, H, W)."""
    import torch

    return ((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255) - MEAN) / DEVIATION


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int) -> dict[str, Tensor]:
    """`<bos> … <eos>`, cut and padded to `length`."""
    rows = [f"<bos> {text} <eos>" for text in texts]
    return tokenizer(rows, add_special_tokens=False, padding=True, truncation=True, max_length=length,
                     return_tensors="pt")  # fmt: skip


def train_clip(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    scenes: list[Scene],
    renderer: Renderer,
    settings: dict[str, Any],
    seed: int,
    scratch: Path | None = None,
) -> list[dict[str, float]]:
    """Contrastive training on pictures and tags, in place; the learning curve."""
    texts = tag_texts(scenes, settings["texts"], seed)
    order = epochs(len(scenes), settings["steps"] * settings["batch"], seed)
    length = model.config.text_config.max_position_embeddings

    def collate(items: list[int]) -> dict[str, Tensor]:
        import torch

        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        numbers = [order[item] for item in items]
        variants = [item // len(scenes) % settings["texts"] for item in items]
        encoded = encode_texts(tokenizer, [texts[n][v] for n, v in zip(numbers, variants, strict=True)], length)
        return {**encoded, "pixel_values": pixels(renderer.render_all([scenes[n] for n in numbers])),
                "return_loss": True}  # fmt: skip

    model.train()
    return fit(model, collate, name="clip", steps=settings["steps"], batch=settings["batch"],
               learning_rate=settings["learning_rate"], muon_learning_rate=settings["muon_learning_rate"], seed=seed,
               scratch=scratch, weight_decay=0.05)  # fmt: skip


def tag_texts(scenes: list[Scene], variants: int, seed: int) -> list[list[str]]:
    """`variants` different tag lines per scene."""
    draw = random.Random(f"tags/{seed}")
    return [[language.tags(scene, draw) for _ in range(variants)] for scene in scenes]


def epochs(count: int, length: int, seed: int) -> list[int]:
    """`length` numbers below `count`: one permutation after another."""
    draw, order = random.Random(f"epochs/{seed}"), []
    while len(order) < length:
        order += draw.sample(range(count), count)
    return order[:length]


def similarity(model: CLIPModel, tokenizer: Any, images: np.ndarray, texts: list[str]) -> np.ndarray:
    """Cosine of every picture with every text: (pictures, texts)."""
    import torch

    length = model.config.text_config.max_position_embeddings
    with torch.inference_mode():
        seen = model.vision_model(pixel_values=pixels(images)).pooler_output
        said = model.text_model(**encode_texts(tokenizer, texts, length)).pooler_output
        seen, said = model.visual_projection(seen), model.text_projection(said)
        return (seen / seen.norm(dim=-1, keepdim=True) @ (said / said.norm(dim=-1, keepdim=True)).T).numpy()
