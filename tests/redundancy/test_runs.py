"""Runs and their evidence: what stage 2 really shows, whose run answers which item, and cards that find their arms."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from zlib import crc32

import pytest

from mmlib import claims
from mmlib.errors import UserError
from mmlib.formats.llava import Record, Turn
from mmlib.models import align
from mmlib.redundancy import cuts, runs
from mmlib.redundancy.cuts import Cut
from mmlib.verdicts import judge
from tests.redundancy.conftest import CHANCE, ITEMS, made_up

LABELS = [label for label in ("vqav2", "okvqa", "gqa", "textcaps", "aokvqa", "refcoco", "vg", "ocrvqa")
          for _ in range(30)]  # fmt: skip
ROWS = list(range(len(LABELS)))
RECIPE = {"steps": 20, "rehearsed": 4, "batch": 12, "learning_rate": 0.1, "muon_learning_rate": 0.0}


def shown_by_stage_two(rows, monkeypatch):
    """Labels of the records that stage 2 puts into its batches."""
    records = [Record(str(row), None, (Turn("human", "?"), Turn("gpt", "!")), LABELS[row]) for row in rows]
    batches = []
    lengths = iter(range(len(records)))
    monkeypatch.setattr(align, "encode_turns", lambda tokenizer, turns, count: ([next(lengths)], [0]))
    monkeypatch.setattr(align, "_batch", lambda made, pictures, tokenizer: batches.append([ids[0] for ids, _ in made]))
    size = RECIPE["batch"]
    monkeypatch.setattr(align, "_train", lambda model, collate, *rest: [
        collate(list(range(step * size, (step + 1) * size))) for step in range(RECIPE["steps"])])  # fmt: skip
    model = SimpleNamespace(config=SimpleNamespace(image_seq_length=9))
    known = [(([-1], [0]), None)] * (RECIPE["rehearsed"] * size)
    align.train_stage2(model, None, records, {}, RECIPE, 5, known)
    return Counter(records[i].dataset for batch in batches for i in batch if i >= 0)


@pytest.mark.parametrize("cut", [Cut((), 100), Cut(("okvqa",), 25), Cut(("okvqa",), 0)], ids=lambda cut: cut.arm)
def test_exposures_are_what_stage_two_shows(cut, monkeypatch):
    rows = cuts.remaining(cut, ROWS, LABELS, 5)
    seen = runs.exposures(rows, LABELS, RECIPE, 5)
    truth = shown_by_stage_two(rows, monkeypatch)
    for group in cuts.GROUPS:
        assert seen[group.name]["shows"] == sum(truth[label] for label in group.labels)
    assert seen["okvqa"]["records"] == len({row for row in rows if LABELS[row] == "okvqa"})


def test_matched_cuts_are_shown_as_often_and_plain_ones_are_not():
    full, plain, matched = (
        runs.exposures(cuts.remaining(cut, ROWS, LABELS, 2), LABELS, RECIPE, 2)
        for cut in (Cut((), 100), Cut(("ocrvqa",), 25), Cut(("ocrvqa",), 25, matched=True))
    )
    assert {name: seen["shows"] for name, seen in matched.items()} == {n: seen["shows"] for n, seen in full.items()}
    assert plain["ocrvqa"]["shows"] < 0.5 * full["ocrvqa"]["shows"]
    assert plain["vqav2"]["shows"] > full["vqav2"]["shows"], "others take the batches over"


def test_a_shard_is_a_cut_and_a_seed(settings):
    made = runs.shards(settings, RECIPE, ROWS, LABELS)
    names = [shard["name"] for shard in made]
    per_cut = len(cuts.all_cuts(settings)) - 1
    assert len(set(names)) == len(names) == per_cut * len(settings["seeds"]) + len(settings["full_seeds"])
    assert {shard["recipe"]["steps"] for shard in made} == {RECIPE["steps"]}, "equal steps"
    with pytest.raises(UserError, match=r"seeds \[2\] have no run on the full mixture"):
        runs.shards({**settings, "full_seeds": [0, 1]}, RECIPE, ROWS, LABELS)


def test_an_item_of_own_is_answered_by_the_cut_of_its_group_and_one_of_other_by_the_rest(settings):
    results = made_up(settings, lambda arm, name: (crc32(f"{arm} {name}".encode()) % 50 + 25) / 100)
    evidence = runs.as_evidence(results, settings, CHANCE)
    scores = {result["name"]: result["scores"] for result in results}
    for metric in ("own", "other"):
        values = evidence["metrics"][metric]["values"]["cut-25-matched"]["1"]
        for unit, value in zip(evidence["units"][metric], values, strict=True):
            name, number = unit.split("/")
            judges = [g.name for g in cuts.GROUPS if (name in g.own) == (metric == "own")]
            expected = [scores[f"{judge}-25-matched/seed1"][name][int(number)] for judge in judges]
            assert value == pytest.approx(sum(expected) / len(expected), abs=1e-5) and len(judges) in (1, 5)
    assert set(evidence["metrics"]["mean"]["values"]) == {"full", "several-25", "several-25-matched"}
    assert evidence["metrics"]["own_okvqa"]["floor"] == CHANCE["knowledge"]
    assert evidence["n_asked"]["own_vqav2"] == 5 * ITEMS == len(evidence["units"]["own_vqav2"])


def test_fewer_items_than_asked_cost_the_verdict(root, settings):
    study = claims.load(root / "claims/redundancy.yaml")
    evidence = runs.as_evidence(made_up(settings, lambda arm, name: 0.9), {**settings, "items": ITEMS + 1}, CHANCE)
    rows = [judge(card, evidence, profile="laptop") for card in study.claims]
    assert all(row["verdict"] == "inconclusive" and "were asked for" in row["reason"] for row in rows)


def losing(arm, name):
    """Every cut loses a lot on its own benchmarks and nothing elsewhere; repeating gives nothing back."""
    own = next(g.name for g in cuts.GROUPS if name in g.own) if name in cuts.TRAINED else ""
    cut = arm.startswith((f"{own}-", "several-")) and own
    return 0.35 if cut else 0.9


def test_every_card_finds_its_arms_and_tells_a_loss_from_none(root, settings):
    study = claims.load(root / "claims/redundancy.yaml")
    for rate, loses in ((losing, True), (lambda arm, name: 0.9, False)):
        evidence = runs.as_evidence(made_up(settings, rate), settings, CHANCE)
        for card in study.claims:
            row = judge(card, evidence, profile="laptop")
            assert row["seeds"] == card.seeds and row["n_used"] == row["n_asked"], card.id
            if loses and card.control.arm == cuts.FULL and card.treatment.metric != "other":
                assert row["high"] < -card.criterion.margin, card.id
            else:
                assert row["effect"] == 0, card.id
