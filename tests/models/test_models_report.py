"""The report's tables: means, spread, and requirements that fail when they should."""

from __future__ import annotations

import random

import pytest

from mmlib.models import models_report
from mmlib.world.benchmarks import BENCHMARKS

CHANCE = {benchmark.name: 0.3 for benchmark in BENCHMARKS}
LLAVA = {"caption_names": 0.95}


def results(full=0.9, part=0.6, broken=None, shift=0.0):
    """Five runs on all and five on a part; `broken`: a benchmark at chance; `shift`: added to the last run."""
    runs = []
    for share, level in ((1.0, full), (0.15, part)):
        for seed in range(5):
            draw, scores = random.Random(f"{seed}"), {}
            for b in BENCHMARKS:
                wanted = 0.3 if b.name == broken else level + (shift if seed == 4 else 0.0)
                ones = round(100 * wanted)
                scores[b.name] = draw.sample([1.0] * ones + [0.0] * (100 - ones), 100)
            runs.append({"share": share, "seed": seed, "records": round(1000 * share), "scores": scores})
    return runs


def met(runs, llava=LLAVA):
    table = models_report.by_benchmark(runs, CHANCE)
    rows = models_report.requirements(table, models_report.by_run(runs), llava)
    return [row["met"] for row in rows]


def test_means_and_spread_are_the_scores_own():
    table = models_report.by_benchmark(results(shift=-0.1), CHANCE)
    row = table[(table["share"] == 1.0) & (table["benchmark"] == "count")].iloc[0]
    assert (
        row["value"] == pytest.approx(88.0) and row["best"] == pytest.approx(90) and row["worst"] == pytest.approx(80)
    )
    assert row["low"] < row["value"] < row["high"] and row["chance"] == pytest.approx(30)
    runs = models_report.by_run(results(shift=-0.1))
    assert runs[(runs["share"] == 1.0) & (runs["seed"] == 4)]["mean"].item() == pytest.approx(80)


def test_all_is_met_where_all_is_well():
    assert all(met(results()))


@pytest.mark.parametrize(
    ("fault", "unmet"),
    [
        ({"full": 0.55}, 1),
        ({"broken": "odd"}, 2),
        ({"shift": -0.05}, 4),
        ({"shift": -0.2}, 5),
        ({"part": 0.87}, 6),
    ],
)
def test_each_requirement_trips(fault, unmet):
    assert not met(results(**fault))[unmet]


def test_poor_captions_and_untrained_abilities_at_chance_trip():
    assert not met(results(), {"caption_names": 0.8})[0]
    runs = results()
    for run in runs:
        for b in BENCHMARKS:
            if not b.trained:
                run["scores"][b.name] = [1.0] * 30 + [0.0] * 70
    assert not met(runs)[3]
