"""Trained models between shards: text in a shard's result, a file that workers open."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.jade.model import Jade, Shape
from mmlib.jade.tokens import Words

CLIP = "results/world/clip"
FROZEN = "look.vision."  # CLIP's weights, which every model shares
OPEN = 6  # models that a worker keeps: those of one seed and some


def as_text(model: Jade) -> str:
    """What was trained, as base64 of a safetensors file."""
    from safetensors.torch import save

    own = {name: value.contiguous() for name, value in model.state_dict().items() if not name.startswith(FROZEN)}
    return base64.b64encode(save(own)).decode()


def stored(
    results: list[dict[str, Any]], shards: list[dict[str, Any]], root: Path, folder: str
) -> dict[tuple[int, str], dict[str, Any]]:
    """Results by (seed, model), their `weights` moved into files: `{path, sha256}`, by content."""
    return {(shard["seed"], shard["model"]): {**result, "weights": _file(result["weights"], root, folder)}
            for shard, result in zip(shards, results, strict=True)}  # fmt: skip


def _file(text: str, root: Path, folder: str) -> dict[str, str]:
    data = base64.b64decode(text)
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{folder}/{sha256}.safetensors"
    if not (root / path).is_file() or store.sha256_file(root / path) != sha256:  # absent, or torn by a kill
        store.atomic_write(root / path, data)
    return {"path": path, "sha256": sha256}


def opened(root: Path, stored: dict[str, str], shape: Shape) -> Jade:
    """The model of a file, in eval mode.

    Raises:
        UserError: the file is missing, was changed, or holds another model.
    """
    return _opened(root, stored["path"], stored["sha256"], shape)


@lru_cache(OPEN)
def _opened(root: Path, path: str, sha256: str, shape: Shape) -> Jade:
    from safetensors.torch import load_file

    if not (root / path).is_file() or store.sha256_file(root / path) != sha256:
        raise UserError(f"{path} is missing or was changed", "remove it, and run the stage again")
    model = blank(root, shape)
    found = model.load_state_dict(load_file(root / path), strict=False)
    if found.unexpected_keys or any(not name.startswith(FROZEN) for name in found.missing_keys):
        raise UserError(f"{path} holds another model", "remove it, and run the stage again")
    return model.eval()


def blank(root: Path, shape: Shape) -> Jade:
    """A model with the world's CLIP, and first weights for the rest."""
    from mmlib.models.clip import open_clip

    words = Words()
    return Jade(open_clip(root / CLIP), len(words), words.pad, shape, 0)
