"""Made-up runs of the study at its own settings: 0 and 1 for every item, with a right-answer rate for every arm."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib import config
from mmlib.redundancy import cuts
from mmlib.world.benchmarks import BENCHMARKS

ITEMS = 60
CHANCE = {benchmark.name: 0.25 for benchmark in BENCHMARKS}


@pytest.fixture(scope="session")
def settings(root):
    return {**config.values("redundancy.cuts", root), "items": ITEMS}


def made_up(settings, rate):
    """Runs in which `rate(arm, benchmark)` of the items are right, the same items first for all arms of a seed."""
    results = []
    for cut in cuts.all_cuts(settings):
        for seed in settings["seeds" if cut.groups else "full_seeds"]:
            scores = {}
            for number, benchmark in enumerate(BENCHMARKS):
                ranks = np.random.default_rng(100 * seed + number).permutation(ITEMS)
                right = ranks < rate(cut.arm, benchmark.name) * ITEMS
                scores[benchmark.name] = [float(value) for value in right]
            results.append({"name": f"{cut.arm}/seed{seed}", "seed": seed, "scores": scores})
    return results
