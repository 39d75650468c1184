"""V3, V4 and V5: objectives against their definitions, masks that hide what they say, copies by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmlib.models.fusion_encoder import Encoder, Shape
from mmlib.survey_vlp import masks, questions, records, scenes, tasks

SETTINGS = {"seeds": [0, 1], "scenes": 64, "batch": 8, "task_steps": 3, "tune_steps": 2, "match_steps": 2,
            "token_steps": 2, "mask_steps": 2, "test_scenes": 20}  # fmt: skip
HEADS = {"words": len(scenes.WORDS), "match": 2, "nouns": 11, "pixels": 432, "to_text": 64, "to_image": 64}


def model() -> Encoder:
    return Encoder(Shape(scenes.SIZE, joint=2, length=questions.LENGTH, heads=HEADS), 0)


def loss_of(made: Encoder, task: str, ids: torch.Tensor, image: torch.Tensor, nouns: torch.Tensor) -> torch.Tensor:
    return tasks.task_loss(made, task, ids, image, nouns, torch.Generator().manual_seed(0))


def test_untrained_objectives_start_where_a_guess_does(root):
    data, made = questions.pool(64, 0), model()
    nouns = torch.where(data["things"][..., 0] < 0, 10, data["things"][..., 0])
    for name in ("words", "match", "nouns"):
        torch.nn.init.zeros_(made.lm_heads[name].weight)
        torch.nn.init.zeros_(made.lm_heads[name].bias)
    with torch.inference_mode():
        parts = data["text"], questions.tiles(data), nouns
        found = {task: loss_of(made, task, *parts).item() for task in ("mlm", "prefix", "itm", "mrc")}
    expected = {"mlm": len(scenes.WORDS), "prefix": len(scenes.WORDS), "itm": 2, "mrc": 11}
    assert found == pytest.approx({task: math.log(count) for task, count in expected.items()}, abs=1e-4)


def test_matching_sees_right_pairs_and_wrong_ones_alike(root):
    """A model that always says `fits` is right in half of the cases: its loss must not fall below that."""
    data, made = questions.pool(64, 0), model()
    torch.nn.init.zeros_(made.lm_heads["match"].weight)
    made.lm_heads["match"].bias.data = torch.tensor([-5.0, 5.0])
    with torch.inference_mode():
        loss = loss_of(made, "itm", data["text"], questions.tiles(data), None).item()
    assert loss == pytest.approx(5, abs=0.01)


def test_regression_of_a_cell_is_by_its_pixels(root):
    data, made = questions.pool(16, 0), model()
    image = questions.tiles(data)
    torch.nn.init.zeros_(made.lm_heads["pixels"].weight)
    torch.nn.init.zeros_(made.lm_heads["pixels"].bias)
    hit = torch.rand(image.shape[:2], generator=torch.Generator().manual_seed(0)) < 0.3
    with torch.inference_mode():
        assert loss_of(made, "mrfr", data["text"], image, None).item() == pytest.approx(image[hit].pow(2).mean().item())


def test_regions_are_cells_with_things_less_what_is_missed(root):
    data = questions.pool(400, 0, repeat=True)
    full = data["things"][..., 0] >= 0
    image, seen = tasks.tokens("region", data, 0)
    assert torch.equal(seen, full) and image.shape[1:] == (4, 432)
    for arm, share in list(tasks.MISSED.items())[1:]:
        _, some = tasks.tokens(arm, data, 0)
        assert not (some & ~full).any() and 1 - some.sum() / full.sum() == pytest.approx(share, abs=0.04)
    assert tasks.tokens("patch", data, 0)[0].shape[1:] == (16, 108) and tasks.tokens("patch", data, 0)[1] is None
    assert tasks.Grid(64)(tasks.tokens("grid", data, 0)[0][:2]).shape == (2, 16, 64)


def test_contrast_of_a_single_stream_depends_on_what_the_text_says(root):
    """Without towers a text must pass the joint blocks: the embedding of `<cls>` alone is the same for all texts."""
    data, made = questions.pool(64, 0), model()
    ids, image = data["text"], questions.tiles(data)
    with torch.inference_mode():
        said, shown = made.vectors(*made.alone(ids, image))
        other, _ = made.vectors(*made.alone(ids, image.flip(0)))
        blind, _ = made.vectors(made.text(ids), made.image(image))
    assert said.std(0).max() > 1e-3 and shown.std(0).max() > 1e-3 and blind.std(0).max() < 1e-6
    assert torch.allclose(said, other, atol=1e-6), "a text is read without any picture"
    optimizer = torch.optim.Adam(made.parameters(), 0.002)
    for _ in range(40):
        optimizer.zero_grad()
        loss = loss_of(made, "cmcl", ids, image, None)
        loss.backward()
        optimizer.step()
    assert loss.item() < math.log(64) - 0.1, "vectors that are the same for all texts cannot fall below ln 64"


def test_every_task_sees_every_scene_and_as_often_as_the_others():
    """With a fixed order two tasks would divide the scenes: one sees even blocks, the other odd ones, for good."""
    seen: dict[str, set[int]] = {"mlm": set(), "itm": set()}
    turns = []
    for step in range(32):  # four epochs of eight batches
        task = tasks.turn(torch.arange(8) + 8 * step, ["mlm", "itm"], 64)
        seen[task].add(step % 8)
        turns.append(task)
    assert seen["mlm"] == seen["itm"] == set(range(8)) and turns.count("mlm") == 16


def test_permuted_captions_name_things_and_colors_but_not_which_belong_together(root):
    things = questions.pool(300, 0)["things"].numpy()
    other = tasks.permuted(things, 0)
    full = things[..., 0] >= 0
    assert np.array_equal(other[..., 0], things[..., 0])
    assert np.array_equal(np.sort(other[..., 1]), np.sort(things[..., 1]))
    assert (other[..., 1] == things[..., 1])[full].mean() == pytest.approx(1 / 3, abs=0.08), "a third by chance"


def test_questions_about_tokens_cannot_be_answered_without_reading_them(root):
    """Colors: three things that all differ, so that without the question one in three is right."""
    ids, answers, image, seen = tasks.asked("region", 90, 0, 0)
    assert ids.shape == (len(scenes.KINDS), 90, 3)
    assert image.shape[:2] == seen.shape[:2] == answers.shape == ids.shape[:2]
    color, count = scenes.KINDS.index("color"), scenes.KINDS.index("count")
    assert (seen[color].sum(1) == 3).all() and set(seen[count].sum(1).tolist()) == {1, 2, 3, 4}
    things = questions.pool(90, 0)["things"]
    names = [scenes.NAMES.index(scenes.WORDS[i]) for i in ids[color, :, 2]]
    assert all((row[:, 0] == name).sum() == 1 for row, name in zip(things, names, strict=True))


def test_who_does_not_read_the_question_gains_nothing_over_another_scenes_question(root, monkeypatch):
    ids, answers, image, _ = tasks.asked("patch", 40, 0, 0)

    def deaf(model: object, ids: torch.Tensor, image: torch.Tensor, seen: object) -> torch.Tensor:
        return torch.nn.functional.one_hot(answers[0], scenes.SIZE).float()

    monkeypatch.setattr(questions, "answer", deaf)
    scores = tasks.judge_tokens(None, "color", ids[0], answers[0], image[0], None)
    assert np.mean(scores["color"]) == 1 and np.mean(scores["color_read"]) == 0


# ---- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", masks.TEXT_MASKS)
def test_words_that_are_hidden(root, mask):
    ids = masks.placed(50, 0)["text"]
    hit = masks.hide_words(ids, mask, torch.Generator().manual_seed(0))
    assert not hit[ids <= scenes.END].any() and (hit.sum(1) >= 2).all()
    for row, hidden in zip(ids, hit, strict=True):
        words, places = [scenes.WORDS[i] for i in row], hidden.nonzero()[:, 0].tolist()
        if mask in ("random", "span"):
            assert len(places) == 2 and (mask == "random" or places[1] == places[0] + 1)
            continue
        assert all(p - 1 in places for p in places if words[p].startswith("##")), "no piece without its beginning"
        assert all(p + 1 in places for p in places if words[p] in scenes.NAMES)
        content = {*scenes.COLOURS, *scenes.NAMES, *scenes.CELLS, *scenes.PIECES}
        assert mask != "content" or all(words[p] in content for p in places)


@pytest.mark.parametrize("mask", masks.IMAGE_MASKS)
def test_patches_that_are_hidden(root, mask):
    made = Encoder(Shape(scenes.SIZE, joint=2, tokens=16, values=108, length=masks.PLACED), 0)
    data = masks.placed(40, 0)
    hit = masks.hide_patches(made, data, mask, torch.Generator().manual_seed(0))
    assert hit.any(1).all() and not hit.all(1).any()
    if mask != "same word":
        assert (hit.sum(1) == 4).all()
    for row, words in zip(hit, data["visual"], strict=True):
        places = row.nonzero()[:, 0]
        if mask == "block":
            assert {(int(p) // 8, int(p) % 4 // 2) for p in places} == {(int(places[0]) // 8, int(places[0]) % 4 // 2)}
        if mask == "same word":
            assert set(words[row].tolist()) == {int(words[places[0]])} and int(words[places[0]]) not in words[~row]


def test_the_common_test_hides_patches_of_things(root):
    data = masks.placed(40, 0)
    hit = masks.hide_patches(None, data, "things", torch.Generator().manual_seed(0))
    assert (hit.sum(1) == 4).all() and not (hit & ~data["full"]).any() and (data["full"].sum(1) == 8).all()
    spread = data["image"].std(2)
    assert spread[data["full"]].mean() > 3 * spread[~data["full"]].mean(), "other patches are flat ground"


def test_copies_of_neighbours_by_brute_force():
    draw = torch.Generator().manual_seed(0)
    image, hit = torch.randn(5, 16, 3, generator=draw), torch.rand(5, 16, generator=draw) < 0.5
    found = masks.neighbours(image, hit)
    for b in range(5):
        for p in range(16):
            near = [q for q in range(16) if abs(p // 4 - q // 4) + abs(p % 4 - q % 4) == 1 and not hit[b, q]]
            near = near or [q for q in range(16) if not hit[b, q]]
            assert torch.allclose(found[b, p], image[b, near].mean(0), atol=1e-5)


def test_errors_count_what_is_hidden_only():
    image = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0))
    hit = torch.zeros(2, 16).bool()
    hit[:, 3] = True
    said = image + 1
    assert masks.patch_error(said, hit, image).tolist() == pytest.approx([1, 1], abs=1e-5)
    said[:, 3] = image[:, 3]
    assert masks.patch_error(said, hit, image).tolist() == [0, 0]


# ---- evidence --------------------------------------------------------------------------------------------------------


def test_one_short_run_of_every_kind(root):
    chosen = ["scratch", tasks.LONGER, "MLM+ITM+CMCL", "region", "grid", "text, span", "picture, random"]
    runs = [tasks.run(shard) for shard in records.shards({arm: tasks.ARMS[arm] for arm in chosen}, SETTINGS)]
    assert {r["study"] for r in runs} == set(tasks.METRICS)
    assert {"r1", "statement", "color"} <= set(runs[0]["scores"]) and len(runs[0]["scores"]["r1"]) == 20
    passes = records.costs(runs)["passes"]
    assert passes["scratch"] == 2 < passes["MLM+ITM+CMCL"] == passes[tasks.LONGER] == 5
    shown = tasks.evidence(runs, "masks", SETTINGS)["metrics"]["error"]["values"]
    assert set(shown) == {"picture, random", "copied neighbours, random"} and set(shown["picture, random"]) == {
        "0",
        "1",
    }
    copies = [r["scores"]["copy"] for r in runs if r["arm"] == "picture, random"]
    assert copies[0] == copies[1] and shown["copied neighbours, random"]["-"] == pytest.approx(copies[0], abs=1e-4)
    assert np.isfinite(
        tasks.evidence(runs, "tokens", SETTINGS)["metrics"]["log10_embed_seconds"]["values"]["grid"]["0"]
    )
