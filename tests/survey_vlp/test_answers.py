"""V6 and V9: what is hidden stays hidden, captions are judged by the scene, rounding is on the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.survey_vlp import answers, records, scenes
from mmlib.survey_vlp.encoder import Encoder, Shape

SETTINGS = {"seeds": [0], "batch": 8, "scenes": 64, "test_scenes": 20, "question_steps": 2, "caption_steps": 2}


def model() -> Encoder:
    return Encoder(Shape(joint=2, length=answers.LENGTH, heads=answers.HEADS), 0)


def test_a_hidden_modality_changes_nothing(root):
    ids, image, _ = answers.colour_questions(16, 0, 0.0)
    made, other_ids, other_image = model(), ids.flip(0), image.flip(0)
    with torch.inference_mode():
        blind, deaf, both = (
            answers.answer(made, mode, ids, image) for mode in ("question only", "picture only", "both")
        )
        assert torch.equal(blind, answers.answer(made, "question only", ids, other_image))
        assert torch.equal(deaf, answers.answer(made, "picture only", other_ids, image))
        assert not torch.allclose(both, answers.answer(made, "both", ids, other_image))
        assert not torch.allclose(both, answers.answer(made, "both", other_ids, image))


def test_bias_is_what_it_says(root):
    for bias, expected in ((0.0, 1 / 6), (0.7, 0.7 + 0.3 / 6)):
        ids, _, right = answers.colour_questions(600, 1, bias)
        names = ids[:, 2] - scenes.ID[scenes.NAMES[0]]
        favourite = scenes.ID[scenes.COLOURS[0]] + names % 6
        assert (favourite == right).float().mean().item() == pytest.approx(expected, abs=0.06)


def test_captions_are_judged_by_the_scene():
    things = scenes.draw(30, (2, 2), 0, distinct=True)
    true, swapped = scenes.captions(things, 1), scenes.captions(things, 1, swap=True)
    perfect, wrong = answers.judge(true, things), answers.judge(swapped, things)
    assert all(np.mean(perfect[name]) == 1 for name in ("precision", "recall")) and np.mean(perfect["bleu4"]) > 0.99
    assert np.mean(wrong["precision"]) == 0 and np.mean(wrong["invented"]) == 0, "right names, wrong binding"
    absent = [next(n for n in scenes.NAMES if n not in text) for text in true]
    invented = answers.judge([f"red {name}" for name in absent], things)
    assert np.mean(invented["invented"]) == 1 and np.mean(invented["precision"]) == 0
    assert answers.facts("red and dog on") == {("", "red"), ("", "dog on")}, "what is no phrase is a false fact"


def test_a_masked_model_writes_from_texts_like_those_it_was_trained_on(root, monkeypatch):
    """It was trained on rows of full length; a text that ends behind its one mask would be a shape it never saw."""
    seen, made = [], answers.captioner("masked", 0)

    def forward(self: Encoder, ids: torch.Tensor, image: torch.Tensor) -> tuple:
        seen.append(ids.clone())
        return torch.zeros(*ids.shape, 64), None

    monkeypatch.setattr(Encoder, "forward", forward)
    answers.write(made, "masked", torch.zeros(2, 4, 432))
    assert {ids.shape[1] for ids in seen} == {answers.LENGTH}
    assert [int((ids[0] == scenes.MASK).sum()) for ids in seen] == list(range(answers.LENGTH - 1, 0, -1))


def test_writing_ends_at_the_end_sign(root):
    _, image, _ = answers.described(6, 0)
    for arm in ("prefix", "masked", "encoder-decoder"):
        texts = answers.write(answers.captioner(arm, 0), arm, image)
        assert len(texts) == 6 and all("<end>" not in t and len(t.split()) <= answers.LENGTH - 1 for t in texts)


def test_rounding_is_on_the_grid_and_finer_with_more_bits():
    made = model()
    whole = made.joint_blocks[0].up.weight
    errors = []
    for bits in (8, 4, 2):
        weight = answers.rounded(made, bits).joint_blocks[0].up.weight
        assert all(len(row.unique()) <= 2**bits - 1 for row in weight)
        errors.append((weight - whole).pow(2).mean().item())
    assert 0 < errors[0] < errors[1] < errors[2] and torch.equal(whole, made.joint_blocks[0].up.weight)


def test_one_run_gives_the_whole_model_its_rounded_copies_and_students(root):
    plan = answers.MODALITY_ARMS["both, balanced"]
    results = answers.run({"arm": "both, balanced", "seed": 0, "plan": plan, "settings": SETTINGS})
    smaller = ["8 bits", "4 bits", "2 bits", "half, distilled", "half, labels"]
    assert [r["arm"] for r in results] == ["both, balanced", *smaller, "both, balanced, other picture"]
    made = answers.evidence(results, "modality", SETTINGS)
    assert results[0]["cost"]["parameters"] > results[4]["cost"]["parameters"] and results[4]["cost"]["passes"] == 2
    assert records.levels(made, "biased").loc["chance", "value"] == pytest.approx(100 / 6, abs=1e-3)
    assert len(made["metrics"]["nats"]["values"]) == 7 and "chance" not in made["metrics"]["nats"]["values"]
    assert results[0]["scores"]["nats"] != results[3]["scores"]["nats"], "rounding to 2 bits shows in the nats"
