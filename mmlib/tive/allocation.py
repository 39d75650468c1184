"""How many records each task gives: shares, whole numbers that add up exactly, and what happens beyond a task's size.

The released code takes N_t = ⌊N d_t / Σ d⌋ and so loses up to one record a task; here the largest remainders are
rounded up, so that arms of an experiment have equal sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mmlib.errors import UserError

if TYPE_CHECKING:
    import numpy as np

Rule = Literal["duplicate", "cap"]


def allocate(sizes: np.ndarray, weights: np.ndarray, budget: int, rule: Rule = "duplicate") -> np.ndarray:
    """N_t in proportion to `weights`, int64 (K,), with Σ N_t = budget.

    Weights: task values d_t (TIVE), sizes (as in the source), ones (uniform), zero to leave a task out (the released
    code leaves out TextCaps).

    Args:
        rule: a task whose share exceeds its size either keeps it, and its records are repeated (`duplicate`, as
            released), or gives all it has and the rest is redistributed by weight over the others (`cap`).
    Raises:
        UserError: negative, NaN or all-zero weights; a task of positive weight without records; with `cap`, a budget
            beyond all records.
    """
    import numpy as np

    sizes, weights = np.asarray(sizes, np.int64), np.asarray(weights, np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise UserError(f"task weights {weights.tolist()}", "give finite ones, at least one above zero")
    if ((weights > 0) & (sizes == 0)).any():
        raise UserError(f"task number {int(np.flatnonzero((weights > 0) & (sizes == 0))[0])} is empty", "leave it out")
    if budget < 0:
        raise UserError(f"a budget of {budget} records", "give 0 or more")
    if rule == "duplicate":
        return round_to(budget * weights / weights.sum(), budget)
    if budget > (there := int(sizes[weights > 0].sum())):
        raise UserError(f"a budget of {budget} records, {there} are there", "lower it, or allow duplicates")
    return _capped(sizes, weights, budget)


def _capped(sizes: np.ndarray, weights: np.ndarray, budget: int) -> np.ndarray:
    import numpy as np

    quota, open_ = np.zeros(len(sizes), np.int64), weights > 0
    while open_.any():
        left = budget - quota[~open_].sum()
        share = np.where(open_, left * weights / weights[open_].sum(), 0.0)
        full = open_ & (share >= sizes)
        if not full.any():
            quota[open_] = _below(share[open_], int(left), sizes[open_])
            break
        quota[full] = sizes[full]
        open_ &= ~full
    return quota


def _below(share: np.ndarray, budget: int, sizes: np.ndarray) -> np.ndarray:
    """Shares below the sizes, rounded: since sizes are whole, rounding up cannot exceed them."""
    quota = round_to(share, budget)
    assert (quota <= sizes).all()
    return quota


def round_to(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers with the given sum, each the share rounded down or up: largest remainders up, ties by order."""
    import numpy as np

    floors = np.floor(shares + 1e-9).astype(np.int64)  # 2.9999999999 is 3
    missing = total - int(floors.sum())
    order = np.argsort(-(shares - floors), kind="stable")
    floors[order[:missing]] += 1
    return floors


def warm_up(sizes: np.ndarray, ratio: float) -> np.ndarray:
    """Records per task of the reference model's training set: equal numbers (the released code), ratio x n in all.

    A task smaller than its part gives all it has; there the released script fails.
    """
    import numpy as np

    if not 0 < ratio <= 1:
        raise UserError(f"a warm-up share of {ratio}", "choose above 0 and up to 1")
    return allocate(sizes, np.ones(len(sizes)) * (np.asarray(sizes) > 0), int(ratio * int(np.sum(sizes))), "cap")
