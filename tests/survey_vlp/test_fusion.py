"""V1 and V8: equal weights, scores against oracles that bind or do not, shortlists by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.errors import UserError
from mmlib.survey_vlp import fusion, questions, records, scenes

SETTINGS = {"seeds": [0], "rates": [1.0], "scenes": 96, "batch": 8, "emoji_steps": 2, "digits_steps": 2,
            "test_scenes": 20, "pictures": 12}  # fmt: skip


def test_architectures_have_equally_many_weights_in_their_blocks():
    def matrices(arm: str) -> int:
        named = fusion.build(arm, 0).named_parameters()
        return sum(weight.numel() for name, weight in named if "blocks" in name and weight.ndim == 2)

    assert {matrices(arm) for arm in fusion.ARCHITECTURES} == {3 * 12 * 64**2}


def test_versions_differ_in_nothing_but_which_color_belongs_to_which_thing(root):
    data = questions.pool(24, 3, versions=3)
    for number in range(8):
        rows = [data["things"][number + 8 * version] for version in range(3)]
        filled = [row[row[:, 0] >= 0] for row in rows]
        assert all(torch.equal(row[:, 0], rows[0][:, 0]) for row in rows), "the same things in the same cells"
        assert len({tuple(sorted(row[:, 1].tolist())) for row in filled}) == 1
        assert all((a[:, 1] != b[:, 1]).all() for a in filled for b in filled if a is not b)


def test_answers_of_the_pool_are_true(root):
    data = questions.pool(30, 4)
    for ids, answer, row in zip(data["ids"][0], data["answers"][0], data["things"], strict=True):
        name = scenes.WORDS[ids[2]]
        assert (scenes.NAMES.index(name), scenes.COLOURS.index(scenes.WORDS[answer])) in map(tuple, row.tolist())


def test_a_dual_encoder_scores_by_a_dot_product_with_the_answers_texts(root):
    model, data = fusion.build("dual encoder", 0), questions.pool(6, 5)
    image = questions.tiles(data)
    with torch.inference_mode():
        logits = fusion.color_logits(model, data["ids"][0], image)
        for number, ids in enumerate(data["ids"][0]):
            texts = scenes.encode([f"{color} {scenes.WORDS[ids[2]]}" for color in scenes.COLOURS], 3)
            said, shown = model.vectors(model.text(torch.from_numpy(texts)), model.image(image[number : number + 1]))
            assert torch.allclose(logits[number], model.logit_scale.exp() * said @ shown[0], atol=1e-5)


@pytest.mark.parametrize("binds", [True, False])
def test_who_binds_finds_the_version_and_who_knows_colors_only_finds_the_scene(root, monkeypatch, binds):
    data = questions.pool(30, 6, versions=3)

    def oracle(model: object, ids: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(ids), fusion.HUES)
        for row, (noun, number) in enumerate(zip(ids[:, 2] - fusion.NOUN, image[:, 0], strict=True)):
            for thing, color in data["things"][int(number)]:
                if thing >= 0 and (thing == noun or not binds):
                    logits[row, color] = 20
        return logits

    monkeypatch.setattr(fusion, "color_logits", oracle)
    scores = fusion.verified(None, data["things"], torch.arange(30)[:, None])
    alike = (torch.arange(30)[:, None] % 10 == torch.arange(30) % 10).numpy()
    right = fusion.recall_at(scores.round(decimals=3).numpy(), 1).mean()
    assert fusion.recall_at(scores.round(decimals=3).numpy(), 1, alike).mean() > 0.6
    assert right > 0.9 if binds else right < 0.4


def test_shortlists_by_brute_force():
    draw = torch.Generator().manual_seed(0)
    quick, slow = torch.randn(12, 12, generator=draw), torch.randn(12, 12, generator=draw)
    found = fusion.shortlists(quick, slow)
    assert sorted(found) == [1, 2, 3, 6, 12]
    for k, part in found.items():
        for query in range(12):
            best = sorted(range(12), key=lambda i: -quick[query, i])[:k]
            assert part["cap"][query] == (query in best)
            assert part["rerank"][query] == (max(best, key=lambda i: slow[query, i]) == query)
    assert np.mean(fusion.shortlists(quick, torch.eye(12))[3]["rerank"]) == np.mean(found[3]["cap"])


def test_every_architecture_takes_its_own_best_rate():
    tuned = [
        {"arm": arm, "rate": rate, "nats": abs(rate - best)}
        for arm, best in zip(fusion.ARCHITECTURES, (0.5, 1.0, 2.0, 1.0), strict=True) for rate in (0.5, 1.0, 2.0)
    ]  # fmt: skip
    plans = fusion.arms(tuned)
    assert [plans[f"{arm}, digits"]["rate"] for arm in fusion.ARCHITECTURES] == [0.5, 1.0, 2.0, 1.0]
    assert plans["dual encoder, emoji, 3 x steps"]["rate"] == 2.0


def test_validation_shares_no_scene_with_the_test(root):
    drawn = [questions.pool(60, seed, test=True)["things"].flatten(1) for seed in (fusion.VALIDATION, fusion.HELD_OUT)]
    assert not {tuple(row) for row in drawn[0].tolist()} & {tuple(row) for row in drawn[1].tolist()}


def test_evidence_of_short_runs_and_a_lost_unit(root):
    plans = fusion.arms([fusion.tune(shard) for shard in fusion.grid(SETTINGS)])
    chosen = {arm: plans[arm] for arm in ("hybrid, emoji", "dual encoder, emoji", "single stream, digits")}
    runs = [fusion.run(shard) for shard in records.shards(chosen, SETTINGS)]
    made = fusion.evidence(runs, SETTINGS)
    assert set(made["metrics"]["color"]["values"]) == {*chosen, "any color that is there"}
    assert set(fusion.rerank_evidence(runs, SETTINGS)["metrics"]["cap"]["values"]) == {
        f"k={k}, emoji" for k in (1, 2, 3, 6, 12)
    }
    spent = records.costs(runs)
    assert spent.loc["hybrid, emoji", "joint_passes_a_query"] == 36
    assert spent.loc["dual encoder, emoji", "joint_passes_a_query"] == 0
    assert (spent["ms_a_query"] > 0).all() and runs[1]["rerank"] == {}
    runs[0]["scores"]["things"].pop()
    with pytest.raises(UserError, match="values for 12 units"):
        fusion.evidence(runs, SETTINGS)
