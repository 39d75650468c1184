"""Claim cards: strict reading, and no criterion edited without a line of history."""

from __future__ import annotations

import copy
import datetime

import pytest

from mmlib import claims
from mmlib.errors import UserError
from tests import claims_fixture as fixture


@pytest.fixture
def raw():
    return fixture.raw_card("D1", "em", "small", {"kind": "difference", "direction": "negative", "margin": 10})


def refused(raw, *words):
    with pytest.raises(UserError) as error:
        fixture.card(raw)
    text = str(error.value)
    assert "\n" not in text and text.startswith("claims/demo.yaml: claim ")
    assert all(word in text for word in words), text
    return text


def test_a_file_of_cards_is_read(tmp_path):
    fixture.write_cards(tmp_path, fixture.raw_cards())
    (study,) = claims.load_all(tmp_path)
    assert study.study == "demo" and study.paper.citation == "Doe 2026"
    assert [card.id for card in study.claims] == ["D1-loss", "D2-same", "D3-nll", "D4-nll-same"]
    first = study.claims[0]
    assert first.treatment == claims.Arm("em", "small") and first.criterion.margin == 10.0 and first.scale == 100.0


def test_the_repository_s_cards_are_valid(root):
    studies = claims.load_all(root)
    assert studies and all(study.claims for study in studies)


@pytest.mark.parametrize("key", ["id", "criterion", "seeds", "published", "requires", "higher_is_better", "history"])
def test_a_missing_key_is_named(raw, key):
    del raw[key]
    refused(raw, f"missing key `{key}`")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sed": 3}, ["claim D1", "unknown key `sed`"]),
        ({"criterion": {"kind": "equivalence", "margin": 3, "margn": 1}}, ["unknown key `criterion.margn`"]),
        ({"criterion": {"kind": "superiority", "margin": 3}}, ["`criterion.kind`", "equivalence or difference"]),
        ({"criterion": {"kind": "difference", "margin": 3}}, ["`criterion.direction`"]),
        ({"criterion": {"kind": "equivalence", "margin": 3, "direction": "positive"}}, ["`criterion.direction`"]),
        ({"criterion": {"kind": "difference", "direction": "down", "margin": 3}}, ["`criterion.direction`"]),
        ({"criterion": {"kind": "equivalence", "margin": 0}}, ["`criterion.margin`"]),
        ({"criterion": {"kind": "equivalence", "margin": float("nan")}}, ["`criterion.margin` must be float"]),
        ({"criterion": {"kind": "equivalence"}}, ["missing key `criterion.margin`"]),
        ({"criterion": "equivalence"}, ["`criterion` must be a section"]),
        ({"seeds": "3"}, ["`seeds` must be int", "str '3'"]),
        ({"seeds": True}, ["`seeds` must be int", "bool"]),
        ({"seeds": 0}, ["`seeds`"]),
        ({"scale": -100}, ["`scale`"]),
        ({"statement": ""}, ["`statement`"]),
        ({"statement": None}, ["`statement` must be str"]),
        ({"higher_is_better": 1}, ["`higher_is_better` must be bool"]),
        ({"at_scale": "huge"}, ["`at_scale`", "reduced or paper"]),
        ({"published": {"effect": 1}}, ["missing key `published.label`"]),
        ({"requires": {"metric": "em", "arm": "big"}}, ["`requires`", "at_least"]),
        ({"criterion": {"kind": "equivalence", "margin": 3}, "requires": None}, ["`requires`", "equivalence"]),
        ({"control": {"metric": "em", "arm": "small"}}, ["`control`"]),
        ({"id": "D 1|"}, ["`id`"]),
        ({"evidence": "/etc/passwd"}, ["`evidence`"]),
        ({"evidence": "results/demo/../../x.json"}, ["`evidence`"]),
        ({"version": 2}, ["`version`"]),
        ({"history": []}, ["`version`"]),
        ({"history": "none"}, ["`history` must be list"]),
    ],
)
def test_a_wrong_value_names_file_claim_and_key(raw, change, words):
    refused({**raw, **change}, *words)


def test_an_id_used_twice_is_refused(tmp_path, raw):
    fixture.write_cards(tmp_path, [raw, raw])
    with pytest.raises(UserError, match=r"claims/demo\.yaml: claim D1: key `id` is used twice"):
        claims.load_all(tmp_path)


@pytest.mark.parametrize("text", ["claims: 3", "- a", "study: demo\nclaims: []", "study: x\npaper: {}\nclaims: []"])
def test_a_malformed_file_is_refused(tmp_path, text):
    (tmp_path / "demo.yaml").write_text(text)
    with pytest.raises(UserError, match=r"claims/demo\.yaml"):
        claims.load(tmp_path / "demo.yaml")


def test_a_file_bears_the_name_of_its_study(tmp_path):
    fixture.write_cards(tmp_path, fixture.raw_cards())
    (tmp_path / "claims/demo.yaml").rename(tmp_path / "claims/other.yaml")
    with pytest.raises(UserError, match=r"claims/other\.yaml: key `study` is `demo`"):
        claims.load_all(tmp_path)


EDITS = {
    "a wider margin": {"criterion": {"kind": "difference", "direction": "negative", "margin": 1}},
    "the other direction": {"criterion": {"kind": "difference", "direction": "positive", "margin": 10}},
    "another arm": {"treatment": {"metric": "em", "arm": "twin"}},
    "another unit of effect": {"scale": 1000},
    "fewer seeds": {"seeds": 1},
    "a weaker requirement": {"requires": None},
    "the paper's scale": {"at_scale": "paper"},
    "silence": {"not_attempted": "too slow"},
    "other evidence": {"evidence": "results/demo/better.json"},
    "the other sign": {"higher_is_better": False},
}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS.keys())
def test_a_criterion_edited_in_silence_is_refused_and_the_remedy_works(raw, change):
    edited = {**raw, **change}
    text = refused(edited, "claim D1: key `history`", "raise `version`")
    new = text.split("fingerprint: ")[1].strip("`")
    line = {"date": datetime.date(2026, 3, 1), "change": "the first margin was in other units", "fingerprint": new}
    mended = fixture.card({**edited, "version": 2, "history": [*raw["history"], line]})
    assert mended.version == 2 and mended.history[0].fingerprint != mended.history[1].fingerprint


def test_history_runs_forward(raw):
    old = {**raw["history"][0], "date": datetime.date(2020, 1, 1)}
    refused({**raw, "version": 2, "history": [*raw["history"], old]}, "`history`", "order of date")


def test_wording_may_be_mended_freely(raw):
    before = claims.fingerprint(fixture.card(raw))
    after = fixture.card({**raw, "statement": "better words", "place": "Table 2", "published": None})
    assert claims.fingerprint(after) == before


def test_yaml_integers_and_floats_are_one_criterion(raw):
    other = copy.deepcopy(raw)
    other["criterion"]["margin"] = 10.0
    assert claims.fingerprint(fixture.card(other)) == claims.fingerprint(fixture.card(raw))
