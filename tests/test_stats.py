"""The bootstrap against closed forms, against scipy, against repeated sampling."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from mmlib.stats import CHUNK, Interval, equivalent, mean_interval, paired_bootstrap


def normal(seed, *shape, loc=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(loc, scale, shape)


def test_one_seed_agrees_with_the_normal_approximation():
    values = normal(0, 1, 2000, loc=0.3)
    error = values.std(ddof=1) / math.sqrt(values.size)
    found = paired_bootstrap(values)
    assert found.effect == pytest.approx(values.mean()) and (found.n, found.seeds) == (2000, 1)
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.05 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.05 * error)


def test_one_seed_agrees_with_scipy():
    from scipy import stats

    values = np.random.default_rng(1).exponential(size=150)  # skewed, so that the two tails differ
    oracle = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=3).confidence_interval
    found = paired_bootstrap(values, reps=20_000)
    width = oracle.high - oracle.low
    assert found.low == pytest.approx(oracle.low, abs=0.02 * width)
    assert found.high == pytest.approx(oracle.high, abs=0.02 * width)


def test_seeds_and_units_add_up_to_the_closed_form():
    """Units worth s_u, seeds worth s_s, no interaction: SE^2 = s_u^2/N + s_s^2/S with unbiased sample variances."""
    units, seeds = normal(2, 1, 400), normal(3, 40, 1, scale=0.4)
    found = paired_bootstrap(units + seeds, level=0.6827)
    error = math.sqrt(units.var(ddof=1) / 400 + seeds.var(ddof=1) / 40)
    assert found.half_width == pytest.approx(error, rel=0.03)


def test_three_seeds_are_drawn_two_at_a_time():
    """Seeds at 0, 1, 2 and no other noise: two draws reach an end in 1/9 of replicates, three draws in 1/27 only."""
    found = paired_bootstrap(np.repeat([[0.0], [1.0], [2.0]], 10, axis=1), level=0.9)
    assert (found.low, found.effect, found.high) == (0.0, 1.0, 2.0)


def test_units_are_shared_by_the_seeds():
    """Copies of one seed carry no news. Resampling units afresh inside each seed would shrink this by sqrt(8)."""
    row = normal(4, 1, 300)
    alone, copied = paired_bootstrap(row), paired_bootstrap(np.repeat(row, 8, axis=0))
    assert copied.half_width == pytest.approx(alone.half_width, rel=0.05)


def test_pairing_removes_what_both_arms_share():
    difficulty, effect = normal(5, 1, 200, scale=5.0), 0.5
    control, treatment = difficulty, difficulty + effect + normal(6, 1, 200, scale=0.1)
    paired = paired_bootstrap(treatment - control)
    assert paired.low > 0.4 and paired.half_width < 0.05 * mean_interval(control).half_width


def test_strata_are_resampled_within():
    """Between-stratum differences are part of the design, not noise."""
    labels = [f"{task}/{number}" for task in "ab" for number in range(100)]
    values = np.array([0.0] * 100 + [10.0] * 100) + normal(7, 200, scale=0.5)
    within = math.sqrt((values[:100].var(ddof=1) + values[100:].var(ddof=1)) / 2 / 200)
    found, pooled = paired_bootstrap(values, labels), paired_bootstrap(values)
    assert found.half_width == pytest.approx(1.96 * within, rel=0.05) and pooled.half_width > 5 * found.half_width
    shuffled = np.random.default_rng(0).permutation(200)
    mixed = paired_bootstrap(values[shuffled], [labels[i] for i in shuffled])
    assert mixed.half_width == pytest.approx(found.half_width, rel=0.05)
    assert paired_bootstrap(values, [label[0] for label in labels]) == found, "a bare stratum name serves as well"


def coverage(seeds, unit, seed, rest, trials=300, units=50):
    rng, hits = np.random.default_rng(8), 0
    for _ in range(trials):
        table = rng.normal(0, unit, (1, units)) + rng.normal(0, seed, (seeds, 1)) + rng.normal(0, rest, (seeds, units))
        found = paired_bootstrap(table, reps=400)
        hits += found.low <= 0 <= found.high
    return hits / trials


def test_coverage():
    """How often a 95 % interval holds the truth: about 95 % when units rule, conservative when all is interaction."""
    assert 0.90 <= coverage(1, 1, 0, 0) <= 0.98
    assert 0.90 <= coverage(3, 1, 0.1, 0.5) <= 0.99
    assert coverage(3, 0, 0, 1) >= 0.95


def test_few_seeds_that_rule_the_noise_are_the_documented_limit():
    assert 0.70 <= coverage(3, 0.2, 0.3, 0.2) <= 0.92


def test_no_variance_is_no_width():
    for table in (np.zeros((3, 20)), np.full((3, 20), 0.1), np.full(20, -2.0)):
        found = paired_bootstrap(table)
        assert found.low == pytest.approx(found.effect, abs=1e-12) == found.high


def test_the_same_seed_gives_the_same_bytes_and_another_differs():
    values = normal(9, 3, 60)
    assert paired_bootstrap(values) == paired_bootstrap(values) != paired_bootstrap(values, seed=1)


def test_many_units_are_done_in_pieces():
    units = CHUNK // 100
    found = paired_bootstrap(normal(10, 1, units), reps=250)
    assert found.n == units and found.half_width == pytest.approx(1.96 / math.sqrt(units), rel=0.2)


def test_more_confidence_is_wider():
    values = normal(11, 1, 80)
    assert paired_bootstrap(values, level=0.99).half_width > paired_bootstrap(values, level=0.9).half_width


def test_equivalence_is_the_interval_inside_the_margin():
    assert equivalent(Interval(0.1, -0.9, 1.0, 10, 1), 1.0)
    assert not equivalent(Interval(0.1, -1.1, 0.5, 10, 1), 1.0)
    assert not equivalent(Interval(0.1, -0.5, 1.1, 10, 1), 1.0)


def test_equivalence_agrees_with_two_one_sided_t_tests():
    """The 90 % interval rule and scipy's two one-sided tests at 5 % accept the same samples."""
    from scipy import stats

    agree = 0
    for seed in range(60):
        values = normal(seed, 100, loc=0.1)
        p = max(stats.ttest_1samp(values, -0.3, alternative="greater").pvalue,
                stats.ttest_1samp(values, 0.3, alternative="less").pvalue)  # fmt: skip
        agree += equivalent(paired_bootstrap(values, reps=4000, level=0.9), 0.3) == (p < 0.05)
    assert agree >= 55  # borderline samples fall either way


@pytest.mark.parametrize("values", [[], [[]], [1.0, math.nan], [math.inf, 0.0], np.zeros((2, 2, 2))])
def test_tables_without_meaning_are_refused(values):
    with pytest.raises(ValueError, match="table of seeds by units"):
        paired_bootstrap(values)


def test_a_stratum_that_could_never_vary_is_refused():
    with pytest.raises(ValueError, match="stratum b has a single unit"):
        paired_bootstrap([1.0, 2.0, 3.0], ["a/1", "a/2", "b/1"])
    with pytest.raises(ValueError, match="2 stratum labels for 3 units"):
        paired_bootstrap([1.0, 2.0, 3.0], ["a/1", "a/2"])


def test_import_is_cheap():
    code = "import sys, mmlib.stats; sys.exit(any(m in sys.modules for m in ('scipy', 'pandas', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
