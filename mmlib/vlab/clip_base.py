"""The study's own CLIP: transformers' class on single frames, so that it knows appearance and nothing of motion.

The world's CLIP has patches of 24 pixels; things move by 9 pixels a frame, so this one has patches of 18, and sixteen
of them. Its training is `mmlib.models.fit.fit`, its pixels and texts are encoded by `mmlib.models.clip`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.metrics import retrieval
from mmlib.models.clip import MAX_LOGIT_SCALE, encode_texts, epochs, pixels, similarity
from mmlib.models.fit import fit
from mmlib.vlab import language
from mmlib.vlab.data import Pairs
from mmlib.world.scenes import SIDE

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import CLIPModel, PreTrainedTokenizerBase

LENGTH = 20  # tokens of a text
HEAD_WIDTH = 16
# transformers starts position embeddings at 0.02. Contrastive training on frames has no reason to make them larger, and
# then no layer tells where a patch was, so that nobody can see where a thing moves either.
POSITION_DEVIATION = 0.5


def build_clip(tokenizer: PreTrainedTokenizerBase, width: int, layers: int, patch: int, seed: int) -> CLIPModel:
    """An untrained CLIP: `layers` blocks of `width` for pictures, one for texts; patches of `patch` pixels."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    shared = {"hidden_size": width, "num_attention_heads": width // HEAD_WIDTH, "projection_dim": width}
    text = {**shared, "intermediate_size": 2 * width, "num_hidden_layers": 1, "vocab_size": len(tokenizer),
            "max_position_embeddings": LENGTH, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    vision = {**shared, "intermediate_size": 4 * width, "num_hidden_layers": layers, "image_size": SIDE,
              "patch_size": patch}  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding.weight, std=POSITION_DEVIATION)
    return model


def train_clip(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Pairs,
    clips: np.ndarray,
    settings: dict[str, Any],
    seed: int,
    scratch: Path | None = None,
) -> list[dict[str, float]]:
    """Contrastive training on single frames and what is seen in them, in place; the learning curve.

    Args:
        clips: uint8 (clips, 8, 72, 72, 3).
        settings: `steps`, `batch`, `learning_rate`, `muon_learning_rate`.
    """
    order = epochs(len(pairs.clips), settings["steps"] * settings["batch"], seed)

    def collate(items: list[int]) -> dict[str, Tensor]:
        import torch

        with torch.no_grad():
            model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        draw = random.Random(f"frames/{seed}/{items[0]}")
        where = [(order[item], draw.randrange(clips.shape[1])) for item in items]
        texts = [draw.choice(language.still_captions(pairs.clips[clip], frame)) for clip, frame in where]
        images = clips[[clip for clip, _ in where], [frame for _, frame in where]]
        return {**encode_texts(tokenizer, texts, LENGTH), "pixel_values": pixels(images), "return_loss": True}

    model.train()
    return fit(model, collate, name="clip", steps=settings["steps"], batch=settings["batch"],
               learning_rate=settings["learning_rate"], muon_learning_rate=settings["muon_learning_rate"], seed=seed,
               scratch=scratch, weight_decay=0.05)  # fmt: skip


def meet_new_words(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, nouns: int, seed: int) -> None:
    """Give words that CLIP never met vectors as long as those of the words it knows, in place.

    They keep the short vectors of initialisation otherwise. From the first step on a text's feature shall tell `left`
    from `right` as well as `dog` from `cat`: the contrastive loss has no other gradient for what tells a clip from
    its reversal, and while both text and video ignore motion neither has a reason to begin.
    """
    import torch

    table = model.text_model.embeddings.token_embedding.weight
    new = tokenizer.convert_tokens_to_ids(language.new_words(nouns))
    known = tokenizer.convert_tokens_to_ids(language.still_words(nouns))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        table[new] = table[known].std() * torch.randn(len(new), table.shape[1], generator=generator)


def recall(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, pairs: Pairs, clips: np.ndarray) -> float:
    """Share of middle frames whose own caption is the nearest among one caption per thing and ground."""
    frame = clips.shape[1] // 2
    first = {language.still_captions(clip, frame)[0]: i for i, clip in enumerate(pairs.clips)}
    sims = similarity(model, tokenizer, clips[list(first.values()), frame], list(first))
    return round(float(retrieval.recall_at(sims, 1).mean()), 6)


def lower_features(model: CLIPModel, clips: np.ndarray, blocks: int, batch: int = 64) -> Tensor:
    """Tokens after the first `blocks` blocks, frame by frame: (clips, T, N + 1, D).

    While those blocks are frozen and hold no adapter this is all that training ever needs to see of a clip.
    """
    import torch

    vision, parts = model.vision_model, []
    for start in range(0, len(clips), batch):
        part = clips[start : start + batch]
        with torch.inference_mode():
            x = vision.pre_layrnorm(vision.embeddings(pixels(part.reshape(-1, *part.shape[2:]))))
            for layer in vision.encoder.layers[:blocks]:
                x = layer(x, None)
        parts.append(x.view(len(part), part.shape[1], *x.shape[1:]).clone())
    return torch.cat(parts)


def image_tokens(model: CLIPModel, clips: np.ndarray) -> Tensor:
    """The plain image encoder frame by frame, its last LayerNorm on all tokens: (clips, T, N + 1, D)."""
    import torch

    with torch.inference_mode():
        tokens = lower_features(model, clips, len(model.vision_model.encoder.layers))
        return model.vision_model.post_layernorm(tokens).clone()
