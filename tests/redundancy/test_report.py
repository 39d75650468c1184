"""Tables of the report against brute force on made-up runs; planted changes must show, and noise must not."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest

from mmlib.redundancy import cuts, figures, report, runs
from tests.redundancy.conftest import CHANCE, made_up

GROUPS = [group.name for group in cuts.GROUPS]


def rate(arm, name):
    """A little noise, and one planted loss: plain okvqa on knowledge."""
    return 0.4 if (arm, name) == ("okvqa-25", "knowledge") else 0.8 + (crc32(f"{arm} {name}".encode()) % 3) / 100


@pytest.fixture(scope="module")
def results(settings):
    noisy = made_up(settings, rate)
    for result in (r for r in noisy if r["name"].startswith("full/")):  # full runs 5 points apart
        for said in result["scores"].values():
            said[: result["seed"]] = [0.0] * result["seed"]
    return noisy


@pytest.fixture(scope="module")
def evidence(results, settings):
    return runs.as_evidence(results, settings, CHANCE)


def mean(results, name, benchmark):
    return 100 * np.mean(next(r for r in results if r["name"] == name)["scores"][benchmark])


def test_an_arm_s_name_tells_what_it_is(settings):
    for cut in cuts.all_cuts(settings):
        facts = report.parse(cut.arm)
        assert facts["percent"] == cut.percent and facts["way"] == report.WAYS[cut.matched]
        assert facts["group"] == ("" if not cut.groups else cut.groups[0] if len(cut.groups) == 1 else "several")


def test_changes_are_paired_by_seed(results, settings):
    table = report.changes(report.scores(results))
    for arm, name in (("okvqa-25", "knowledge"), ("gqa-25-matched", "where"), ("several-25", "ocr")):
        pairs = [mean(results, f"{arm}/seed{s}", name) - mean(results, f"full/seed{s}", name) for s in settings["seeds"]]
        assert table.loc[arm, name] == pytest.approx(np.mean(pairs))
    assert table.loc["full"].abs().max() == 0


def test_the_band_of_noise_tells_a_planted_loss_from_the_rest(results):
    table, beyond = report.matrix(report.scores(results), 25, "plain", GROUPS)
    assert table.shape == (6, 15) and list(table.index) == GROUPS
    assert beyond.loc["okvqa", "knowledge"] and table.loc["okvqa", "knowledge"] < -30
    assert beyond.to_numpy().sum() == 1
    _, matched = report.matrix(report.scores(results), 25, "exposure-matched", GROUPS)
    assert not matched.to_numpy().any()


def test_noise_is_that_of_the_full_runs(results, settings):
    noise = report.noise(report.scores(results))
    runs_ = [mean(results, f"full/seed{s}", "ocr") for s in settings["full_seeds"]]
    assert noise.loc["ocr", "sd"] == pytest.approx(np.std(runs_, ddof=1)) and noise.loc["ocr", "runs"] == 5
    assert (noise.loc["ocr", "worst"], noise.loc["ocr", "best"]) == (min(runs_), max(runs_))


def test_curves_and_contrasts(results, evidence, settings):
    curve = report.curves(evidence, "okvqa")
    assert list(zip(curve["way"], curve["percent"], strict=True)) == [
        ("plain", 100), ("plain", 25), ("plain", 0), ("exposure-matched", 100), ("exposure-matched", 25)
    ]  # fmt: skip
    assert ((curve["low"] <= curve["value"]) & (curve["value"] <= curve["high"])).all()
    changes = report.own_changes(evidence, GROUPS).set_index(["group", "percent", "way"])
    assert changes.loc[("okvqa", 25, "plain"), "high"] < -30 and changes["seeds"].eq(3).all()
    table = report.changes(report.scores(results))
    assert changes.loc[("gqa", 0, "plain"), "value"] == pytest.approx(table.loc["gqa-0", ["spatial", "neighbour"]].mean())
    given = report.repeats(evidence, GROUPS).set_index("group")
    assert given.loc["okvqa", "low"] > 30 and abs(given.loc["gqa", "value"]) < 5
    assert given.loc["okvqa", "value"] == pytest.approx(
        changes.loc[("okvqa", 25, "exposure-matched"), "value"] - changes.loc[("okvqa", 25, "plain"), "value"]
    )


def test_the_mean_beside_the_own_benchmark(results):
    rows = report.beside_the_mean(report.scores(results), GROUPS, 25).set_index(["group", "way"])
    table, row = report.changes(report.scores(results)).loc["okvqa-25"], rows.loc[("okvqa", "plain")]
    assert row["own"] == table["knowledge"] < row["mean"] < 0
    assert row["mean"] == pytest.approx(table[list(cuts.TRAINED)].mean()) and row["all"] == pytest.approx(table.mean())


def test_how_often_records_are_shown():
    seen = {"okvqa": {"records": 8, "shows": 9}, "gqa": {"records": 4, "shows": 5}}
    stored = {"exposures": {"full": seen, "okvqa-25": {**seen, "okvqa": {"records": 2, "shows": 3}},
                            "several-25": seen}}  # fmt: skip
    (row,) = report.shown(stored).to_dict("records")
    assert (row["group"], row["records"], row["of"], row["shows"], row["shows at full"]) == ("okvqa", 2, 8, 3, 9)


def test_pictures_show_what_the_tables_say(results, evidence):
    from matplotlib import pyplot as plt

    frame = report.scores(results)
    _, (first, second, third, fourth) = plt.subplots(1, 4)
    table, beyond = report.matrix(frame, 25, "plain", GROUPS)
    figures.heat(first, table, beyond, "plain")
    words = [text.get_text() for text in first.texts]
    assert len(words) == table.size and f"{table.loc['okvqa', 'knowledge']:+.0f}" in words
    assert len(first.patches) == len(cuts.TRAINED), "own benchmarks are framed"
    figures.pruning(second, report.curves(evidence, "okvqa"), [80.0, 82.0], "okvqa")
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["100 %", "25 %", "0 %"]
    figures.side_by_side(third, report.own_changes(evidence, GROUPS), 25, GROUPS)
    figures.own_and_mean(fourth, report.beside_the_mean(frame, GROUPS, 25))
    assert len(third.get_legend_handles_labels()[1]) == 2 and len(fourth.get_legend_handles_labels()[1]) == 4
    plt.close("all")
