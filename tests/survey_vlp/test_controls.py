"""Controls of V3 and V4: captions that do not bind, questions that cannot be answered unread, a pairing that holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.survey_vlp import controls, questions, records, scenes, tasks

SETTINGS = {"seeds": [0, 1], "scenes": 64, "batch": 8, "task_steps": 3, "tune_steps": 2, "token_steps": 2,
            "mask_steps": 2, "reading_steps": 2, "test_scenes": 20}  # fmt: skip


def test_permuted_captions_name_things_and_colors_but_not_which_belong_together(root):
    things = questions.pool(300, 0)["things"].numpy()
    other = controls.permuted(things, 0)
    full = things[..., 0] >= 0
    assert np.array_equal(other[..., 0], things[..., 0])
    assert np.array_equal(np.sort(other[..., 1]), np.sort(things[..., 1]))
    assert (other[..., 1] == things[..., 1])[full].mean() == pytest.approx(1 / 3, abs=0.08), "a third by chance"


def test_colors_cannot_be_told_without_the_question(root):
    """Three things that all differ: without the question one in three is right."""
    ids, answers, image, seen = controls.asked("region", 90, 0, 0)
    assert ids.shape == (len(scenes.KINDS), 90, 3)
    assert image.shape[:2] == seen.shape[:2] == answers.shape == ids.shape[:2]
    color, count = scenes.KINDS.index("color"), scenes.KINDS.index("count")
    assert (seen[color].sum(1) == 3).all() and set(seen[count].sum(1).tolist()) == {1, 2, 3, 4}
    things = questions.pool(90, 0)["things"]
    names = [scenes.NAMES.index(scenes.WORDS[i]) for i in ids[color, :, 2]]
    assert all((row[:, 0] == name).sum() == 1 for row, name in zip(things, names, strict=True))


def test_who_does_not_read_the_question_gains_nothing_over_another_scenes_question(root, monkeypatch):
    ids, answers, image, _ = controls.asked("patch", 40, 0, 0)

    def deaf(model: object, ids: torch.Tensor, image: torch.Tensor, seen: object) -> torch.Tensor:
        return torch.nn.functional.one_hot(answers[0], len(scenes.WORDS)).float()

    monkeypatch.setattr(questions, "answer", deaf)
    scores = controls.judge(None, "color", ids[0], answers[0], image[0], None)
    assert np.mean(scores["color"]) == 1 and np.mean(scores["color_read"]) == 0


def test_equally_many_steps_of_questions_score_as_the_first_run_does(root):
    """Weights, scenes and questions are those of `tasks.run_tasks`: else the two could not be compared in pairs."""
    same = SETTINGS | {"task_steps": 1, "tune_steps": 2}
    stored = tasks.run_tasks("scratch", [], same | {"tune_steps": 3}, 0)["scores"]
    assert controls.run_passes(controls.LONGER, "", same, 0)["scores"] == stored


def test_short_runs_stand_beside_those_of_the_first_run(root):
    chosen = [controls.LONGER, "MLM, permuted captions", "region, 20% missed", "grid"]
    runs = [controls.run(shard) for shard in records.shards({arm: controls.ARMS[arm] for arm in chosen}, SETTINGS)]
    arms = {arm: {"study": "tasks", "tasks": list(tasks.TASKS[arm])} for arm in ("scratch", *controls.PERMUTED)}
    stored = tasks.evidence([tasks.run(shard) for shard in records.shards(arms, SETTINGS)], "tasks", SETTINGS)
    first = controls.beside(stored)
    made = controls.evidence([*first, *runs], "passes", SETTINGS)["metrics"]["color"]["values"]
    assert set(made) == {"scratch", *controls.PERMUTED, *chosen[:2]} and set(made["scratch"]) == {"0", "1"}
    assert made["MLM"] == stored["metrics"]["color"]["values"]["MLM"]
    assert records.costs(runs).loc[controls.LONGER, "passes"] == 5
    reading = controls.evidence(runs, "reading", SETTINGS)["metrics"]
    assert set(reading["count_read"]["values"]) == set(chosen[2:])
    assert np.isfinite(reading["log10_embed_seconds"]["values"]["grid"]["0"])
