"""Scaling laws (section 2.1 of the survey): the compute-optimal split, joint fits, and the runs they are fitted to.

L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, eq. 10), N weights of the blocks, D training bytes,
C = 6·N·D. Minimising L at fixed C gives N = G·(C/6)^a with **a = beta / (alpha + beta)** and D = (C/6)^b / G with
b = alpha / (alpha + beta); the survey prints the two exponents the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import store
from mmlib.evidence import Evidence
from mmlib.survey_llm.training import LENGTH, byte_text, nats, read, windows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SIZES = tuple(10.0**power for power in np.arange(5, 15, 0.01))  # grid of N for the numeric optimum
IDENTIFIED = (
    "inside the bounds"  # 1 where a fit's coefficients are; not an exponent, but what one must be for a verdict
)
SCALES, POWERS = (-5, 20), (0.02, 2)  # what fits search: logs of E, A, B; alpha, beta
HUBER = 1e-3  # on residuals of log L, as Hoffmann et al. 2022, section D.2


@dataclass(frozen=True)
class Law:
    """Coefficients of L(N, D); the defaults are Hoffmann et al. 2022, eq. 10."""

    irreducible: float = 1.69
    a: float = 406.4
    b: float = 410.7
    alpha: float = 0.34
    beta: float = 0.28

    def loss(self, parameters: ArrayLike, tokens: ArrayLike) -> np.ndarray:
        """Nats per token."""
        n, d = np.asarray(parameters, float), np.asarray(tokens, float)
        return self.irreducible + self.a / n**self.alpha + self.b / d**self.beta

    @property
    def exponents(self) -> tuple[float, float]:
        """(of N, of D) in the compute-optimal split, from the first-order condition alpha·A/N^alpha = beta·B/D^beta."""
        total = self.alpha + self.beta
        return self.beta / total, self.alpha / total

    @property
    def exponents_of_loss(self) -> tuple[float, float]:
        """(alpha, beta)."""
        return self.alpha, self.beta

    def optimum(self, compute: float, *, printed: bool = False) -> tuple[float, float]:
        """(N, D) for a budget in FLOPs; `printed` swaps the exponents, as the survey's text does."""
        scale = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        of_n, of_d = self.exponents[::-1] if printed else self.exponents
        return scale * (compute / 6) ** of_n, (compute / 6) ** of_d / scale

    def numeric_optimum(self, compute: float) -> float:
        """N by trying every size of a fine grid: nothing is derived here, so it can judge the formula."""
        sizes = np.array(SIZES)
        return float(sizes[self.loss(sizes, compute / (6 * sizes)).argmin()])


def fit_law(parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike) -> Law:
    """Least Huber loss on log L from several starts; all five coefficients are positive."""
    from scipy.optimize import least_squares

    n, d, target = (np.asarray(values, float) for values in (parameters, tokens, losses))

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.log(np.exp(x[0]) + np.exp(x[1] - x[3] * np.log(n)) + np.exp(x[2] - x[4] * np.log(d))) - np.log(target)

    starts = [(np.log(0.6 * target.min()), 12 * p, 12 * p, p, p) for p in (0.2, 0.4, 0.7)]
    (least, most), (low, high) = SCALES, POWERS
    bounds = ([least, least, least, low, low], [np.log(target.min()), most, most, high, high])
    rough = min((least_squares(residuals, start, bounds=bounds) for start in starts), key=lambda fit: fit.cost)
    final = least_squares(residuals, rough.x, bounds=bounds, loss="huber", f_scale=HUBER, max_nfev=200)
    e, a, b, alpha, beta = final.x
    return Law(float(np.exp(e)), float(np.exp(a)), float(np.exp(b)), float(alpha), float(beta))


def bootstrap(parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, draws: int, seed: int = 0) -> list[Law]:
    """Laws fitted to the mean loss (cells,) over seeds drawn with replacement from losses (S, cells).

    S - 1 of S seeds are drawn, which makes the variance right for few of them (`mmlib.stats`).
    """
    table, rng = np.asarray(losses, float), np.random.default_rng(seed)
    picks = rng.integers(len(table), size=(draws, max(1, len(table) - 1)))
    return [fit_law(parameters, tokens, table[pick].mean(0)) for pick in picks]


def identified(law: Law) -> bool:
    """Whether a fit ended inside the range that it may search; at an end its coefficients say nothing."""
    low, high = POWERS
    inside = all(1.01 * low < power < 0.99 * high for power in law.exponents_of_loss)
    return inside and law.irreducible > 1.01 * np.exp(SCALES[0])


def compute_law(compute: ArrayLike, losses: ArrayLike, at: ArrayLike) -> np.ndarray:
    """Loss at budgets `at` by a pure power law in C through the lower envelope: the simple rival of the joint fit."""
    c, target = np.asarray(compute, float), np.asarray(losses, float)
    order = np.argsort(c)
    best = [i for i in order if target[i] <= target[c <= c[i]].min()]  # no cheaper run was better
    slope, offset = np.polyfit(np.log(c[best]), np.log(target[best]), 1)
    return np.exp(offset + slope * np.log(np.asarray(at, float)))


def data_law(tokens: ArrayLike, losses: ArrayLike, at: ArrayLike) -> np.ndarray:
    """Loss at amounts of data `at` by E + B / D^beta, sizes left out of account: a rival with an offset."""
    from scipy.optimize import least_squares

    d, target = np.asarray(tokens, float), np.log(np.asarray(losses, float))

    def law(x: np.ndarray, amount: np.ndarray) -> np.ndarray:
        return np.exp(x[0]) + np.exp(x[1] - x[2] * np.log(amount))

    starts = [(target.min() + np.log(0.6), 12 * power, power) for power in (0.2, 0.4, 0.7)]
    (least, most), (low, high) = SCALES, POWERS
    bounds = ([least, least, low], [target.min(), most, high])
    fits = [least_squares(lambda x: np.log(law(x, d)) - target, start, bounds=bounds) for start in starts]
    return law(min(fits, key=lambda fit: fit.cost).x, np.asarray(at, float))


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Train one size on every amount of data (a run of its own for each, with its own schedule): loss per amount."""
    import torch

    from mmlib.survey_llm.transformer import Decoder, Shape

    torch.set_num_threads(1)
    settings, seed = shard["settings"], shard["seed"]
    source, test = byte_text(store.project_root())
    rows = windows(test, settings["test_windows"], LENGTH, seed=0)
    shape = Shape(width=shard["width"], layers=settings["layers"], head=8)
    losses, options = [], {"batch": settings["batch"], "learning_rate": settings["learning_rate"], "seed": seed}
    for amount in settings["amounts"]:
        model = Decoder(shape, seed)
        read(model, source, amount, **options)
        losses.append(round(float(nats(model, rows).mean(1).numpy().mean()), 5))
    return {"width": shard["width"], "seed": seed, "n": shape.block_parameters, "losses": losses}


def shards(widths: list[int], seeds: list[int], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard per size and seed, the widest first."""
    return [
        {"name": f"w{width}/seed{seed}", "width": width, "seed": seed, "settings": settings}
        for width in sorted(widths, reverse=True)
        for seed in seeds
    ]


def table(results: list[dict[str, Any]], amounts: list[int]) -> dict[str, np.ndarray]:
    """`n` and `d` (cells,), `loss` (S, cells), `held` (cells,): runs of at least a quarter of the largest budget but
    for those with N or D below half of the largest, which no fit sees.
    """
    sizes, seeds = sorted({r["n"] for r in results}), sorted({r["seed"] for r in results})
    found = {(r["n"], r["seed"]): r["losses"] for r in results}
    n, d = np.repeat(sizes, len(amounts)), np.tile(amounts, len(sizes))
    loss = np.array([[value for size in sizes for value in found[size, seed]] for seed in seeds])
    held = (n >= sizes[-2]) & (d >= amounts[-2]) & (n * d > sizes[-2] * amounts[-2])
    return {"n": n, "d": d, "loss": loss, "held": held}


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Formula against grid search per budget; per seed a joint fit without the held-out cells, and what it predicts."""
    evidence = Evidence("survey_llm", "survey_llm-bytes")
    budgets = [10.0**power for power in range(18, 27)]
    evidence.units("budget", [f"budget/1e{power}" for power in range(18, 27)], asked=len(budgets))
    evidence.metric("log10_n", units="budget", higher_is_better=True, floor=None)
    law = Law()
    for arm, choose in {"grid": law.numeric_optimum, "corrected": lambda c: law.optimum(c)[0],
                        "printed": lambda c: law.optimum(c, printed=True)[0]}.items():  # fmt: skip
        evidence.add("log10_n", arm=arm, seed=None, values=[float(np.log10(choose(c))) for c in budgets])
    _predictions(evidence, table(results, settings["amounts"]), settings["seeds"])
    return evidence.as_dict()


def _predictions(evidence: Evidence, cells: dict[str, np.ndarray], seeds: list[int]) -> None:
    n, d, held = cells["n"], cells["d"], cells["held"]
    evidence.units("fit", ["fit/joint"], asked=1)
    evidence.units("cell", [f"cell/N={a}, D={b}" for a, b in zip(n[held], d[held], strict=True)], asked=3)
    for name, unit in (("exponent", "fit"), ("loss", "cell"), ("error", "cell")):
        evidence.metric(name, units=unit, higher_is_better=name == "exponent", floor=None)
    for seed, loss in zip(seeds, cells["loss"], strict=True):
        law = fit_law(n[~held], d[~held], loss[~held])
        for arm, value in zip(("parameters", "data"), law.exponents, strict=True):
            evidence.add("exponent", arm=arm, seed=seed, values=[value])
        evidence.add("exponent", arm=IDENTIFIED, seed=seed, values=[float(identified(law))])
        laws = {"joint law": law.loss(n[held], d[held]), "data law": data_law(d[~held], loss[~held], d[held]),
                "compute law": compute_law((n * d)[~held], loss[~held], (n * d)[held])}  # fmt: skip
        for arm, predicted in laws.items():
            evidence.add("loss", arm=arm, seed=seed, values=[float(v) for v in predicted])
            evidence.add("error", arm=arm, seed=seed, values=[float(v) for v in abs(predicted - loss[held])])
        evidence.add("loss", arm="measured", seed=seed, values=[float(v) for v in loss[held]])
