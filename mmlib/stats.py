"""Intervals for paired comparisons of arms that were measured on the same units with the same seeds.

The design is crossed: every seed answers the same N units. A hard item is hard for every seed, so units must be
resampled once for all seeds; fresh units inside each seed would average that shared luck away and make the
interval too short. Resampling rows and columns of the S x N table independently of each other is the pigeonhole
bootstrap of Owen (2007, Annals of Applied Statistics 1:386-411, "The pigeonhole bootstrap"), which is mildly
conservative where seeds and units interact.

Seeds are few, and S draws out of S understate their variance by the factor (S-1)/S: a third at three seeds. We
therefore draw S-1 (McCarthy and Snowden 1985, "The bootstrap and finite population sampling"), which makes the
variance unbiased. It cannot make three seeds many: where seeds dominate the noise, a 95 % interval from three of
them covers about 80-85 % (tests/test_stats.py measures it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

# Resampling counts held at once (replicates x units): 16 MB of them, with as much again for the draws.
CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence limits, over n units and a number of seeds."""

    effect: float
    low: float
    high: float
    n: int
    seeds: int

    @property
    def half_width(self) -> float:
        """Half the length of the interval: what the run could resolve."""
        return (self.high - self.low) / 2


def paired_bootstrap(
    differences: ArrayLike,
    strata: Sequence[str] | None = None,
    *,
    reps: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of the mean difference between two arms.

    Args:
        differences: (S, N) or (N,), treatment minus control per seed and unit.
        strata: N labels; units are resampled inside groups of equal text before the first "/" (unit ids do).
        reps: bootstrap replicates.
        seed: of the resampling; one seed gives one interval, on every machine.
        level: confidence level.

    Raises:
        ValueError: no values, values that are not finite, labels of another length, or a stratum of one unit
            (it could never vary, and its variance would silently be left out).
    """
    table = np.atleast_2d(np.asarray(differences, dtype=float))  # (S, N)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError("differences must be a table of seeds by units, not empty, of finite numbers")
    groups = _groups(strata, table.shape[1])
    rng = np.random.default_rng(seed)
    means = np.concatenate([_replicate(table, groups, rows, rng) for rows in _chunks(reps, table.shape[1])])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(table.mean()), float(low), float(high), n=table.shape[1], seeds=table.shape[0])


def mean_interval(
    values: ArrayLike, strata: Sequence[str] | None = None, *, reps: int = 2_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of a level (one arm's mean) for figures: the same resampling on raw values, (S, N) or (N,).

    Not for comparing arms: two arms share their units, so overlapping intervals of levels say little.
    """
    return paired_bootstrap(values, strata, reps=reps, seed=seed, level=level)


def equivalent(interval: Interval, margin: float) -> bool:
    """Whether the whole interval lies within ±margin, the interval form of two one-sided tests (TOST).

    With a 90 % interval this is the usual 5 % TOST (Schuirmann 1987). The ledger passes its 95 % interval, the
    stricter 2.5 % test, so that one interval serves figure, table and verdict.
    """
    return -margin <= interval.low and interval.high <= margin


def _groups(strata: Sequence[str] | None, units: int) -> list[np.ndarray]:
    """Index arrays of the units of each stratum, in order of name."""
    if strata is None:
        return [np.arange(units)]
    if len(strata) != units:
        raise ValueError(f"{len(strata)} stratum labels for {units} units")
    names = np.array([label.partition("/")[0] for label in strata])
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    lonely = [str(names[group[0]]) for group in groups if len(group) == 1]
    if lonely and units > 1:
        raise ValueError(f"stratum {lonely[0]} has a single unit")
    return groups


def _chunks(reps: int, units: int) -> Iterator[int]:
    # The split depends on N only, never on free memory: it orders the random draws.
    size = max(1, CHUNK // units)
    for start in range(0, reps, size):
        yield min(size, reps - start)


def _replicate(table: np.ndarray, groups: list[np.ndarray], rows: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `rows` replicates. Sums come before the one division: exact for 0/1 metrics on any machine."""
    seeds, units = table.shape
    counts = np.empty((rows, units))
    for group in groups:
        counts[:, group] = _counts(rows, len(group), rng)
    draws = max(1, seeds - 1)
    picked = rng.multinomial(draws, np.full(seeds, 1 / seeds), size=rows)  # (rows, S)
    return ((counts @ table.T) * picked).sum(axis=1) / (units * draws)


def _counts(rows: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `size` units is drawn in `size` draws with replacement, (rows, size)."""
    drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
