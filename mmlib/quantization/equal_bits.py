"""Which width is best at equal bits? Scores along a family, read at the same number of stored bits.

Every width gives a curve: score against stored bits, a point per member of the family. Members differ by factors, so
no two widths weigh exactly the same; between members the curve is taken as linear in the logarithm of the bits, and
two widths are compared by the mean height of their curves over the sizes that both reach. That mean is a weighted sum
of the members' scores, so it can be taken problem by problem and seed by seed, and paired like any other score.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError

if TYPE_CHECKING:
    from numpy import ndarray

    from mmlib.evidence import Evidence

BEST = 4  # the width that the paper finds best, compared with every other one
POINTS = 2001  # of the mean over the common range
COUNTED = {"block": "block_bytes", "total": "total_bytes"}  # without and with embedding, norms
METRICS = {"cot": ("cot_strict", 0.0), "logp": ("cot_logprob", None)}  # read there, and the floor of each


def common_range(one: list[float], other: list[float]) -> tuple[float, float]:
    """The sizes that both curves reach.

    Raises:
        UserError: there is none; two curves that do not overlap cannot be compared.
    """
    low, high = max(min(one), min(other)), min(max(one), max(other))
    if low >= high:
        raise UserError(f"sizes {one} and {other} have no range in common", "add a size to quantization.family.sizes")
    return low, high


def weights(sizes: list[float], low: float, high: float) -> ndarray:
    """Weights (M,) of M members, ascending in size: their sum with the scores is the mean height over low … high.

    Args:
        sizes: stored bits of the members; the range must lie within them.
    """
    import numpy

    if sizes != sorted(sizes) or not sizes[0] <= low < high <= sizes[-1]:
        raise ValueError("sizes must ascend and enclose the range")
    at = numpy.linspace(math.log(low), math.log(high), POINTS)
    known = numpy.log(sizes)
    heights = [numpy.interp(at, known, unit) for unit in numpy.eye(len(sizes))]  # hat functions, (M, POINTS)
    return numpy.trapezoid(heights, at, axis=1) / (at[-1] - at[0])


def pairs(widths: list[int]) -> list[tuple[int, int]]:
    """(4, b) for every other width b, 16 bits among them; none if 4 bits were not measured."""
    return [(BEST, bits) for bits in (16, *widths) if bits != BEST] if BEST in widths else []


def compare(results: list[dict[str, Any]], metric: str, counted: str, one: int, other: int) -> dict[str, Any]:
    """`low`, `high` in bits, and for both widths the per-problem mean height over that range, by seed.

    Args:
        results: of `family.evaluate`.
        counted: `block` or `total`.

    Returns:
        {"low": bits, "high": bits, "scores": {width: {seed: values (N,)}}}.
    """
    import numpy

    members = sorted({result["width"] for result in results})
    found = {(r["width"], r["seed"]): r["arms"] for r in results}
    seeds = sorted({seed for _, seed in found})
    sizes = {
        bits: [8.0 * found[member, seeds[0]][str(bits)]["size"][COUNTED[counted]] for member in members]
        for bits in (one, other)
    }
    low, high = common_range(sizes[one], sizes[other])
    scores = {
        bits: {
            seed: weights(sizes[bits], low, high)
            @ numpy.array([found[member, seed][str(bits)]["scores"][metric] for member in members], dtype=float)
            for seed in seeds
        }
        for bits in (one, other)
    }
    return {"low": low, "high": high, "scores": scores}


def add_to(evidence: Evidence, results: list[dict[str, Any]], widths: list[int]) -> None:
    """Metrics `cot_equal_block`, `…_total`, `logp_equal_…` of arms `w4-beside-w16`, `w16-beside-w4`.

    Per problem and seed. Exact match ends at a ceiling; the log-probability of the worked solution (`logp`) does not.
    """
    for short, (metric, floor) in METRICS.items():
        for counted in COUNTED:
            name = f"{short}_equal_{counted}"
            evidence.metric(name, units="problem", higher_is_better=True, floor=floor)
            for one, other in pairs(widths):
                scores = compare(results, metric, counted, one, other)["scores"]
                for bits, beside in ((one, other), (other, one)):
                    for seed, values in scores[bits].items():
                        rounded = [round(float(value), 6) for value in values]
                        evidence.add(name, arm=f"w{bits}-beside-w{beside}", seed=seed, values=rounded)
