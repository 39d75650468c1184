"""Retrieval: rank of the right item among all, with ties counted against chance and not against luck."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    import numpy as np


def ranks(similarity: np.ndarray, relevant: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(items better than the best relevant one, irrelevant items equal to it), per query.

    Args:
        similarity: (queries, gallery); higher is more similar.
        relevant: bool, same shape; None: item i belongs to query i.
    Raises:
        UserError: not a finite matrix, or a query without a relevant item.
    """
    import numpy as np

    if similarity.ndim != 2 or not np.isfinite(similarity).all():
        raise UserError("similarities are not a finite matrix", "check the embeddings for NaN")
    if relevant is None:
        if similarity.shape[0] != similarity.shape[1]:
            raise UserError(f"similarities of shape {similarity.shape} need `relevant`", "pass which items are right")
        relevant = np.eye(len(similarity), dtype=bool)
    if not relevant.any(1).all():
        raise UserError(f"query {int((~relevant.any(1)).argmax())} has no relevant item", "leave it out")
    best = np.where(relevant, similarity, -np.inf).max(1, keepdims=True)
    better = ((similarity > best) & ~relevant).sum(1)
    tied = ((similarity == best) & ~relevant).sum(1)
    return better, tied


def recall_at(similarity: np.ndarray, k: int, relevant: np.ndarray | None = None) -> np.ndarray:
    """Per query the probability that the best relevant item is among the first k if ties are broken at random.

    A constant similarity, for which many public scripts report a recall of 1, scores k / gallery here.
    """
    import numpy as np

    if k < 1:
        raise UserError(f"recall at {k}", "choose k of at least 1")
    better, tied = ranks(similarity, relevant)
    return np.clip((k - better) / (tied + 1), 0.0, 1.0)
