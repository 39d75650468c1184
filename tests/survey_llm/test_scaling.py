"""Scaling laws: the optimum from first principles, a fit that recovers what made the data, windows without leaks."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib.survey_llm import positions, scaling, training
from mmlib.survey_llm.scaling import Law

BUDGET = 5.76e23  # Chinchilla's


def test_the_corrected_exponents_are_what_the_grid_finds():
    law = Law()
    for compute in (1e19, BUDGET):
        n, d = law.optimum(compute)
        assert 6 * n * d == pytest.approx(compute)
        assert abs(np.log10(n / law.numeric_optimum(compute))) < 0.01
    slope = np.log(law.numeric_optimum(1e26) / law.numeric_optimum(1e18)) / np.log(1e8)
    assert slope == pytest.approx(0.4516, abs=0.002) and law.exponents == pytest.approx((0.4516, 0.5484), abs=1e-4)


def test_the_printed_exponents_are_not():
    """The planted fault is the survey's own: a model of 5.4 T parameters on 18 B tokens."""
    n, d = Law().optimum(BUDGET, printed=True)
    assert n == pytest.approx(5.4e12, rel=0.02) and d == pytest.approx(18e9, rel=0.03)
    assert Law().loss(n, d) == pytest.approx(2.26, abs=0.01)
    assert Law().loss(*Law().optimum(BUDGET)) == pytest.approx(1.931, abs=0.002)


def test_losses_that_the_paper_states():
    assert Law().loss(70e9, 1.4e12) == pytest.approx(1.937, abs=0.001)
    assert Law().loss(280e9, 300e9) == pytest.approx(1.993, abs=0.001)


def grid():
    n, d = np.meshgrid([6e3, 14e3, 25e3, 55e3], [3e4, 6e4, 1.2e5, 2.5e5])
    return n.ravel(), d.ravel()


def test_a_fit_recovers_the_law_that_made_the_data():
    n, d = grid()
    truth = Law(1.3, 40.0, 60.0, 0.34, 0.28)
    fitted = scaling.fit_law(n, d, truth.loss(n, d))
    assert fitted.exponents == pytest.approx(truth.exponents, abs=0.02)
    assert fitted.loss(2e5, 1e6) == pytest.approx(truth.loss(2e5, 1e6), rel=0.01)
    swapped = scaling.fit_law(d, n, truth.loss(n, d))
    assert swapped.exponents == pytest.approx(truth.exponents[::-1], abs=0.02), "axes mixed up must show"


def test_the_compute_law_follows_the_envelope():
    compute = np.array([1e9, 1e10, 1e11, 1e10])
    losses = np.append(2.0 * compute[:3] ** -0.05, 9.0)  # a wasteful run must not count
    assert scaling.compute_law(compute, losses, [1e12]) == pytest.approx(2.0 * 1e12**-0.05)


def test_held_out_cells_are_the_three_largest():
    amounts, widths = [10, 20, 40, 80], (1, 2, 4, 8)
    results = [{"n": w, "seed": s, "losses": [w + s] * 4} for s in (0, 1) for w in widths]
    cells = scaling.table(results, amounts)
    assert cells["held"].sum() == 3 and cells["loss"].shape == (2, 16)
    largest_fitted = (cells["n"] * cells["d"])[~cells["held"]].max()
    assert (cells["n"] * cells["d"]).max() == 4 * largest_fitted


def test_no_held_out_document_is_trained_on(root):
    train, test = training.byte_text(root)
    assert len(train) > 5 * len(test)
    haystack = train.tobytes()
    sample = [test[i : i + 200].tobytes() for i in range(0, 100_000, 2500)]
    assert np.mean([piece in haystack for piece in sample]) < 0.05, "shared boilerplate apart"
    assert train[1000:1200].tobytes() in haystack, "the check can find what is there"


def test_targets_of_a_short_and_a_long_context_are_the_same_bytes():
    import torch

    seen = {}

    def uniform(ids, **options):
        seen[ids.shape[1]] = options
        return {"logits": torch.zeros(*ids.shape, 256)}

    rows = torch.randint(0, 256, (3, 257))
    for length in (64, 256):
        assert positions.tail_loss(uniform, rows, length, scale=0.5) == pytest.approx(np.log(256))
    assert seen == {64: {"scale": 0.5}, 256: {"scale": 0.5}}


def test_training_lowers_the_loss_and_is_the_same_twice():
    import torch

    from mmlib.survey_llm.transformer import Decoder, Shape

    torch.set_num_threads(1)
    rows = torch.arange(64 * 17).remainder(7).view(64, 17) + 60  # a pattern of period 7
    losses = []
    for _ in range(2):
        model = Decoder(Shape(width=16, head=8), seed=3)
        before = training.nats(model, rows).mean()
        training.train(model, rows[:, :-1], rows[:, 1:], batch=4, learning_rate=0.02, seed=0)
        losses.append(training.nats(model, rows).mean(1).numpy())
    assert losses[0].mean() < before / 2 and (losses[0] == losses[1]).all()


def test_a_fit_that_ends_at_a_bound_is_told_from_one_inside():
    assert scaling.identified(Law())
    for edge in (Law(irreducible=float(np.exp(-5))), Law(alpha=0.02), Law(beta=2.0)):
        assert not scaling.identified(edge)


def test_bootstrap_spreads_with_the_noise_of_seeds_and_not_without():
    sizes, amounts = (grid.ravel() for grid in np.meshgrid(10.0 ** np.arange(4, 7, 0.5), 10.0 ** np.arange(5, 8, 0.5)))
    law = Law(irreducible=1.3, a=40, b=60)
    exact = np.tile(law.loss(sizes, amounts), (4, 1))
    noisy = exact * np.exp(np.random.default_rng(0).normal(0, 0.01, exact.shape))
    spread = [np.std([fit.alpha for fit in scaling.bootstrap(sizes, amounts, losses, 8)]) for losses in (exact, noisy)]
    assert spread[0] < 1e-3 < spread[1]


def test_the_law_in_data_alone_finds_the_law_it_was_made_from_and_leaves_sizes_out():
    amounts = 10.0 ** np.arange(4, 8, 0.5)
    law = Law(irreducible=1.5, a=0.0, b=50.0, beta=0.4)
    assert scaling.data_law(amounts, law.loss(1e6, amounts), 1e9) == pytest.approx(float(law.loss(1e6, 1e9)), abs=0.01)
