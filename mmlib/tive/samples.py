"""Encoded samples in padded batches of similar length, with projected picture features in place of picture tokens.

Vision tower and projector get no gradient here, so what they make of a picture is a constant: it can be computed once
per picture (`cached_features`) and shared by all records about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mmlib.formats.llava import Record

IGNORED = -100  # label of tokens without a loss
Features = Callable[[list[str]], "Tensor"]  # names of pictures -> (N, P, D), as the language model reads them


@dataclass(frozen=True)
class Sample:
    """A record as token ids; `labels` are the ids of answers and `IGNORED` elsewhere."""

    id: str
    ids: list[int]
    labels: list[int]
    image: str | None = None


@dataclass(frozen=True)
class Batch:
    """Padded on the right. `rows` are the samples' numbers."""

    rows: list[int]
    ids: Tensor  # (N, T)
    mask: Tensor  # (N, T)
    labels: Tensor  # (N, T)
    images: list[str]  # of the rows that have one, in order


def encode_records(tokenizer: PreTrainedTokenizerBase, records: list[Record], image_tokens: int) -> list[Sample]:
    """A whole record, all its turns, is one sample; only answers have labels (the paper's code does the same)."""
    from mmlib.models.llava import encode_turns

    return [Sample(r.id, *encode_turns(tokenizer, r.turns, image_tokens), r.image) for r in records]


def check(samples: list[Sample]) -> None:
    """Refuse samples without an answer token by name: their mean loss would be 0/0.

    The first token cannot be predicted, so a label there counts as none.
    """
    if bad := [s.id for s in samples if all(label == IGNORED for label in s.labels[1:])]:
        raise UserError(f"{len(bad)} records have no answer token: {', '.join(bad[:3])}", "remove or mend them")


def buckets(samples: list[Sample], tokens: int) -> Iterator[list[int]]:
    """Numbers of samples, longest first, in batches of at most `tokens` padded tokens (at least one sample).

    Longest first: if memory does not suffice, the first batch says so.
    """
    order = sorted(range(len(samples)), key=lambda i: (-len(samples[i].ids), i))
    start = 0
    while start < len(order):
        size = max(1, tokens // len(samples[order[start]].ids))
        yield order[start : start + size]
        start += size


def collate(samples: list[Sample], rows: list[int], pad: int) -> Batch:
    """Pad the samples `rows` on the right."""
    import torch

    part = [samples[i] for i in rows]
    width = max(len(s.ids) for s in part)
    ids = torch.tensor([s.ids + [pad] * (width - len(s.ids)) for s in part])
    labels = torch.tensor([s.labels + [IGNORED] * (width - len(s.ids)) for s in part])
    mask = torch.tensor([[1] * len(s.ids) + [0] * (width - len(s.ids)) for s in part])
    return Batch(rows, ids, mask, labels, [s.image for s in part if s.image])


def embed(core: PreTrainedModel, batch: Batch, features: Features | None) -> Tensor:
    """(N, T, D): word embeddings, picture tokens replaced by the features of each row's picture.

    Raises:
        UserError: picture tokens and features do not match in number.
    """
    import torch

    ids = batch.ids.to(core.device)
    with torch.no_grad():
        embeds = core.get_input_embeddings()(ids)
        if features is None or not batch.images:
            return embeds
        seen = features(batch.images).to(embeds.device, embeds.dtype).flatten(0, 1)  # (N_images * P, D)
        places = ids == core.config.image_token_id
        if places.sum() != len(seen):
            culprit = f"{int(places.sum())} picture tokens in a batch whose pictures have {len(seen)} features"
            raise UserError(culprit, "encode one mark per picture, with as many tokens as the model makes features")
        embeds[places] = seen
    return embeds


def picture_features(core: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, P, D): vision tower and projector, without gradient."""
    import torch

    with torch.no_grad():
        made = core.model.get_image_features(pixel_values=pixel_values.to(core.device), return_dict=True)
    return torch.stack(list(made.pooler_output))


def cached_features(core: PreTrainedModel, images: dict[str, np.ndarray], batch: int = 256) -> Features:
    """Compute every picture's features once; float32 P x D each (576 x 4096: 9.4 MB, so not for a big pool).

    Args:
        images: uint8 (H, W, 3) by name.
    """
    import numpy as np
    import torch

    from mmlib.models.clip import pixels

    names = list(images)
    parts = [names[i : i + batch] for i in range(0, len(names), batch)]
    table = torch.cat([picture_features(core, pixels(np.stack([images[n] for n in part]))) for part in parts])
    place = {name: i for i, name in enumerate(names)}
    return lambda wanted: table[[place[name] for name in wanted]]


def computed_features(core: PreTrainedModel, load: Callable[[list[str]], Tensor]) -> Features:
    """Compute the features of a batch's pictures when they are asked for, each once.

    Args:
        load: names -> pixel values (N, 3, H, W).
    """

    def features(wanted: list[str]) -> Any:
        names = list(dict.fromkeys(wanted))
        made = picture_features(core, load(names))
        return made[[names.index(name) for name in wanted]]

    return features
