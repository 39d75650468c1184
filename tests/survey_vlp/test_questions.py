"""Statements about two pictures: truth by brute force, and a probe that only binding can win."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.survey_vlp import questions


def shows(things: torch.Tensor, noun: int, color: int) -> bool:
    return (noun, color) in map(tuple, things.tolist())


@pytest.mark.parametrize("world", ["emoji", "digits"])
def test_statements_are_true_or_false_as_they_say(root, world):
    data = questions.statements(120, 0, world=world)
    counts = {"both": lambda n: n == 2, "one": lambda n: n == 1, "none": lambda n: n == 0}
    for row in range(120):
        noun, color = int(data["ids"][row, 2]) - questions.NOUN, int(data["color"][row])
        seen = sum(shows(scene, noun, color) for scene in data["things"][row])
        assert counts[questions.QUANTIFIERS[data["quantifier"][row]]](seen) == bool(data["true"][row])
        for scene in data["things"][row]:
            full = scene[scene[:, 0] >= 0]
            assert noun in full[:, 0] and color in full[:, 1], "the thing and the color are there, bound or not"
            assert len(full) == len(full[:, 0].unique()) == len(full[:, 1].unique()) == 3


@pytest.mark.parametrize("binds", [True, False])
def test_who_binds_judges_statements_and_who_knows_colors_only_tosses_a_coin(root, binds):
    train, test = questions.statements(600, 1), questions.statements(240, 2)

    def oracle(data: dict) -> object:
        numbers = {image.numpy().tobytes(): scene for pair, both in zip(data["image"], data["things"], strict=True)
                   for image, scene in zip(pair, both, strict=True)}  # fmt: skip

        def logits(ids: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            said = torch.zeros(len(ids), questions.HUES)
            for row, (noun, picture) in enumerate(zip(ids[:, 2] - questions.NOUN, image, strict=True)):
                for thing, color in numbers[picture.numpy().tobytes()].tolist():
                    if thing >= 0 and (thing == noun or not binds):
                        said[row, color] = 9
            return said

        return logits

    both = {name: torch.cat([train[name], test[name]]) for name in train}
    right = np.mean(questions.judge_statements(oracle(both), train, test, 0)["statement"])
    assert right > 0.97 if binds else 0.4 < right < 0.6


def test_true_and_false_statements_are_equally_many():
    data = questions.statements(1500, 3)
    for quantifier in range(3):
        share = data["true"][data["quantifier"] == quantifier].float().mean().item()
        assert share == pytest.approx(0.5, abs=0.06)
