"""Which records of a task are taken: seeded soft sampling by value, and the hard choices it is compared with.

Soft sampling draws without replacement with P ∝ exp(q v), by Gumbel-top-N: the N largest of q v + Gumbel noise have
exactly the distribution of that sequential draw (Plackett-Luce; arXiv:1903.06059). q is an inverse temperature: 0 is
uniform, infinity takes the top N, and −q is the control of the sign. The noise depends on seed and task alone, so arms
with the same seed differ by what they prefer, not by luck.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.tive.allocation import round_to

if TYPE_CHECKING:
    import numpy as np

# (values of a task's records, how many, noise source) -> their numbers within the task, best first, all different.
Chooser = Callable[["np.ndarray", int, "np.random.Generator"], "np.ndarray"]


def gumbel_top(values: np.ndarray, count: int, draw: np.random.Generator, q: float) -> np.ndarray:
    """`count` different numbers below len(values), drawn with inverse temperature `q`; int64, in order of the draw."""
    noise = draw.gumbel(size=len(values))
    _check(values, count)
    if math.isinf(q):
        return top(math.copysign(1, q) * values, count)
    return top(q * values + noise, count)


def top(values: np.ndarray, count: int, draw: np.random.Generator | None = None) -> np.ndarray:
    """The `count` largest values; ties by order."""
    import numpy as np

    _check(values, count)
    return np.argsort(-values, kind="stable")[:count]


def uniform(values: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Drawn without regard to the values: `gumbel_top` at q = 0."""
    return gumbel_top(values * 0.0, count, draw, 0.0)


def top_within_class(values: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """The largest values within each answer class, classes in the shares they have among all records.

    The control for a collapse onto one answer: high values may just be those of one class.
    """
    import numpy as np

    _check(values, count)
    names, of = np.unique(classes, return_inverse=True)
    sizes = np.bincount(of, minlength=len(names))
    quota = round_to(count * sizes / sizes.sum(), count)
    chosen = [np.flatnonzero(of == c)[top(values[of == c], quota[c])] for c in range(len(names))]
    together = np.concatenate(chosen)
    return together[np.argsort(-values[together], kind="stable")]


def _check(values: np.ndarray, count: int) -> None:
    import numpy as np

    if np.isnan(values).any():
        raise UserError(f"the value of record number {int(np.flatnonzero(np.isnan(values))[0])} is NaN", "mend it")
    if not 0 <= count <= len(values):
        raise UserError(f"{count} of {len(values)} records", "ask for what is there, or allow duplicates")


def with_duplicates(choose: Chooser, values: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Like `choose`; a count beyond the records takes all as often as it can, then chooses the rest (as released)."""
    import numpy as np

    whole, rest = divmod(count, len(values)) if len(values) else (0, count)
    chosen = choose(values, rest, draw)
    return np.concatenate([np.tile(np.arange(len(values)), whole), chosen]).astype(np.int64)


def generator(seed: int, task: str) -> np.random.Generator:
    """Noise of a task: independent of which other tasks there are."""
    import numpy as np

    digest = hashlib.sha256(f"{seed}/{task}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def effective_share(values: np.ndarray, q: float) -> float:
    """Effective sample size over n: (Σ w)² / (n Σ w²), w = exp(q v). 1: q v prefers nothing; 1/n: it takes one."""
    import numpy as np

    if math.isinf(q):
        return float((values == values.max() if q > 0 else values == values.min()).mean())
    logits = q * values
    weights = np.exp(logits - logits.max())
    return float(weights.sum() ** 2 / (weights**2).sum() / len(values))


def lift(values: np.ndarray, chosen: np.ndarray) -> float:
    """Mean value of the chosen less the mean of all, in standard deviations of the values (0 if all are equal)."""
    spread = float(values.std())
    tiny = 1e-12 * max(1.0, abs(float(values.mean())))
    return float(values[chosen].mean() - values.mean()) / spread if len(chosen) and spread > tiny else 0.0
