"""The shards of the study from end to end at toy size, arms by name, rates by validation, evidence per unit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmlib import store
from mmlib.errors import UserError
from mmlib.vlab import base, blending, data, measures, report, study
from mmlib.vlab.language import FAMILIES
from tests.world.conftest import DATA

KINDS = ["across", "along", "size", "distance"]
BASE = {"clip_seed": 0, "nouns": 8, "kinds": KINDS, "clips": 12, "test_clips": 12, "width": 32, "layers": 2}
SETTINGS = {
    "blocks": [1], "hidden": 8, "steps": 2, "batch": 4, "questions": 2, "clip_pace": 0.2,
    "answer_share": 0.8, "muon_ratio": 2.0, "contrastive_steps": 1,
}  # fmt: skip
READER = {"steps": 2, "batch": 4, "learning_rate": 1e-3, "muon_learning_rate": 2e-3, "questions": 2,
          "answer_share": 0.8}  # fmt: skip


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A project with data and nothing else."""
    home = tmp_path_factory.mktemp("vlab")
    (home / "mmlib").mkdir()
    (home / "params.yaml").write_text("")
    (home / "data").symlink_to(DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield home
        base.base_clip.cache_clear()
        base.lower.cache_clear()
        data.clips.cache_clear()


def adapt(arm, split="test", keep=False):
    return study.adapt({"name": arm, "arm": arm, "seed": 0, "learning_rate": 1e-3, "pace": 5.0, "split": split,
                        "keep": keep, "base": BASE, "settings": SETTINGS})  # fmt: skip


@pytest.fixture(scope="module")
def adapted(project):
    shard = {"name": "base", "base": BASE,
             "settings": {"stills": 12, "steps": 2, "batch": 4, "learning_rate": 1e-3, "muon_learning_rate": 2e-3,
                          "reader": READER}}  # fmt: skip
    trained = base.train_base(shard)
    base.write_weights([trained], project / "results/vlab/clip")
    assert "weights" not in trained
    results = [adapt("b0"), adapt("tconv@T2"), adapt("tconv", keep=True)]
    base.write_weights(results, project / "results/vlab/adapting")
    return results


@pytest.fixture(scope="module")
def blended(adapted):
    shard = {"arm": "parallel", "seed": 0, "source": "tconv", "base": BASE, "name": "parallel",
             "settings": {**SETTINGS, "learning_rate": 1e-3}}  # fmt: skip
    return blending.blend(shard)


def test_evidence_has_a_value_per_unit_and_the_ceiling(adapted, blended):
    pairs, _ = base.drawn(BASE, "test")
    evidence = measures.as_evidence("vlab-adapting", [json.loads(json.dumps(result)) for result in adapted], pairs)
    assert set(evidence["metrics"]) == set(measures.METRICS)
    for metric, declared in evidence["metrics"].items():
        length = len(evidence["units"][declared["units"]])
        assert length > 0 and all(len(v) == length for arm in declared["values"].values() for v in arm.values()), metric
    assert set(evidence["metrics"]["motion"]["values"][measures.BLIND]["-"]) == {0.5}
    mixed = sum(len(evidence["units"][f"{family} question"]) for family in ("static", "motion", "joint"))
    assert len(evidence["units"]["any question"]) == mixed
    assert set(blended["scores"]) == set(measures.METRICS) - {"motion_shuffled", "mixed"}
    table = report.arms_table(evidence, ["b0", "tconv", "unknown"])
    assert list(table["arm"]) == ["b0", "tconv"] and list(table["seeds past the transition"]) == ["0 of 1"] * 2


def test_two_adapted_encoders_are_seen_item_by_item(adapted):
    """`other` given its own seed: the same tokens in both slots, also of reversed items."""
    from mmlib.vlab import training

    shard = {"arm": "video+other", "seed": 0, "other": 0, "source": "tconv", "base": BASE, "name": "two",
             "settings": {**SETTINGS, "learning_rate": 1e-3}}  # fmt: skip
    arm, _ = study.parse_arm("tconv", SETTINGS["blocks"], SETTINGS["hidden"])
    tokens = blending.branch_tokens(shard, arm, "test", {"video": "video", "image": "other"})
    seen = training.seer(tokens)([0, 1, 5])
    assert len(tokens["other"]) == 2 * BASE["test_clips"] and (seen["other"] == seen["video"]).all()
    result = blending.blend(shard)
    assert len(result["scores"]["motion"]) == len(adapted[0]["scores"]["motion"]) and result["arm"] == "video+other"


def test_an_order_blind_arm_is_right_once_in_every_pair(adapted):
    scores = adapted[0]["scores"]
    assert scores["motion"] == scores["motion_reversed"] and max(scores["reversal_r1"]) <= 0.5
    assert len(scores["distance"]) == 6 and sum(scores["distance"][::2]) + sum(scores["distance"][1::2]) <= 3
    assert sum(scores["motion"][::2]) + sum(scores["motion"][1::2]) <= len(scores["motion"]) / 2


def test_a_shard_gives_the_same_bits_again(adapted):
    again = adapt("tconv", keep=True)
    base.write_weights([again], store.project_root() / "again")
    assert again == adapted[2]
    folder = store.project_root()
    name = "tconv-seed0.safetensors"
    assert (folder / "again" / name).read_bytes() == (folder / "results/vlab/adapting" / name).read_bytes()


def test_arms_by_name():
    arm, changes = study.parse_arm("tconv@T4", [1, 2], 16)
    assert (arm.adapter, arm.blocks, arm.hidden, changes) == ("tconv", (1, 2), 16, {"frames": 4})
    arm, changes = study.parse_arm("b2@qa", [1], 8)
    assert (
        changes == {"ratios": {"vtc": 0.0, "pair": 0.0, "match": 0.0, "mlm": 0.0, "ulm": 0.0, "qa": 1.0}}
        and arm.adapter == "none"
    )
    ratios = study.parse_arm("b2@match", [1], 8)[1]["ratios"]
    assert (ratios["pair"], ratios["match"], ratios["ulm"], ratios["qa"]) == (0.0, 2.0, 0.5, 1.0)
    for bad in ("conv", "tconv@lm"):
        with pytest.raises(UserError, match=f"unknown arm `{bad}`"):
            study.parse_arm(bad, [1], 8)


def test_settings_are_the_best_of_validation():
    def tried(arm, rate, pace, score):
        return {"arm": arm, "learning_rate": rate, "pace": pace, "scores": {key: [score, 0] for key in FAMILIES}}

    tries = [tried("b2@match", 0.1, 1, 0.2), tried("b2@match", 0.2, 3, 0.8), tried("b2@qa", 0.2, 9, 0.8)]
    tries += [tried("st3d", 0.1, 3, 0.5), tried("st3d", 0.1, 1, 0.5), tried("st3d", 0.2, 1, 0.5)]
    chosen = study.choose(tries)
    assert chosen["st3d"] == {"learning_rate": 0.1, "pace": 1}, "the lower ones of equals"
    paces = {name: study.settings_for(name, chosen, [1])["pace"] for name in ("b0", "b2@qa", "tattn", "st3d@T4")}
    assert paces == {"b0": 3, "b2@qa": 9, "tattn": 1, "st3d@T4": 1}


def test_missing_and_foreign_weights_are_named(adapted, project):
    with pytest.raises(UserError, match=r"clip-seed9\.safetensors is missing"):
        base.open_base({**BASE, "clip_seed": 9})
    with pytest.raises(UserError, match="holds another model"):
        base.open_base({**BASE, "width": 48})


def test_the_search_is_shown_try_by_try():
    shares = {"static/what": 0.5, "motion/size": 1.0, "motion/across": 0.5, "motion/along": 0.5, "motion/distance": 0.0}
    plain = {**shares, "static/what": 0.8}
    tried = [
        {"arm": "st3d", "learning_rate": 0.003, "pace": 1.0, "score": 0.4, "shares": shares},
        {"arm": "st3d", "learning_rate": 0.0015, "pace": 1.0, "score": 0.6, "shares": shares},
        {"arm": "b2@qa", "learning_rate": 0.0015, "pace": 1.0, "score": 0.2, "shares": plain},
    ]
    chosen = {"st3d": {"learning_rate": 0.0015, "pace": 1.0}, "b2@qa": {"learning_rate": 0.0015, "pace": 1.0}}
    table = report.search_table({"tried": tried, "chosen": chosen})
    assert list(table["arm"]) == ["b2@qa", "st3d", "st3d"] and list(table["taken"]) == ["yes", "yes", ""]
    assert list(table["score %"]) == [20, 60, 40] and list(table["static/what"]) == [80, 50, 50]
    told = report.cost_of_order({"tried": tried, "chosen": chosen}, "st3d")
    assert "50 at MOTION 50, 50 at MOTION 50" in told and told.endswith("as it was: 80.")


def test_parts_and_gains_are_those_of_the_evidence():
    units = {"motion question": ["size/0", "size/1", "distance/2"], "joint question": ["size/0", "size/1"]}
    arms = {
        "image": {"static": [1, 1], "what": [1], "motion": [0, 0, 0], "joint": [0, 0], "motion_reworded": [0, 0, 0]},
        "video": {"static": [1, 0], "what": [0], "motion": [1, 0, 1], "joint": [0, 1], "motion_reworded": [1, 0, 0]},
        "both": {"static": [1, 1], "what": [1], "motion": [1, 0, 1], "joint": [1, 1], "motion_reworded": [1, 0, 0]},
    }
    metrics = {name: {"values": {arm: {"0": values[name]} for arm, values in arms.items()}} for name in arms["image"]}
    evidence = {"units": units, "metrics": metrics}
    table = report.parts_table(evidence, list(arms)).set_index("arm")
    given = table["JOINT where MOTION is right %"]
    assert np.isnan(given["image"]) and given["video"] == 0 and given["both"] == 100
    told = report.adds_or_restores(evidence, "both", "image", "video")
    assert "STATIC: +0.0 to `image`, which is the better branch (100.0 against 50.0)" in told
    assert "MOTION: +0.0 to `video`, which is the better branch (66.7 against 0.0)" in told


def test_pictures_of_clips():
    clip = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    strip = report.strip(clip)
    assert strip.shape == (4, 12, 3) and np.array_equal(strip[:, :5], clip[0]) and np.array_equal(strip[:, 7:], clip[1])
    assert (strip[:, 5:7] == 255).all()
    both = report.beside(clip, clip[::-1])
    assert both.shape == (2, 4, 14, 3) and np.array_equal(both[0, :, 9:], clip[1]) and (both[:, :, 5:9] == 255).all()
    from io import BytesIO

    from PIL import Image

    for form in ("GIF", "PNG"):
        with Image.open(BytesIO(report.animation(clip, form=form))) as image:
            assert image.n_frames == 2 and image.size == (10, 8) and image.format == form
