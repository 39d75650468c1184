"""Weights of the family on disk: safetensors, one file a model."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.quantization import arithmetic, family

if TYPE_CHECKING:
    from pathlib import Path


def write(results: list[dict[str, Any]], folder: Path) -> None:
    """Store each model as `w<width>-seed<seed>.safetensors`, and drop its weights from the results."""
    for result in results:
        name = _file_name(result["width"], result["seed"], result["early"])
        store.atomic_write(folder / name, base64.b64decode(result.pop("weights")))


def _file_name(width: int, seed: int, early: bool) -> str:
    return f"w{width}{'-early' if early else ''}-seed{seed}.safetensors"


def load(settings: dict[str, Any], width: int, seed: int, folder: Path, early: bool = False) -> family.Subject:
    """The stored family member, in full precision; `early`: the one that was stopped early, to be tuned further."""
    from safetensors.torch import load_file

    path = folder / _file_name(width, seed, early)
    if not path.is_file():
        raise UserError(f"{path} is missing", "run `dvc repro -s quantization-family`")
    tokenizer = arithmetic.build_tokenizer(settings["largest"])
    model = family.build_model(width, tokenizer, seed)
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # the output layer is the embedding
        raise UserError(f"{path} holds another model", "delete results/quantization/family and run again")
    return family.subject(model.eval(), tokenizer, settings, seed)
