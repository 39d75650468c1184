"""V3, V4 and V5: objectives against their definitions, masks that hide what they say, copies by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmlib.survey_vlp import masks, questions, records, scenes, tasks
from mmlib.survey_vlp.encoder import Encoder, Shape

SETTINGS = {"seeds": [0, 1], "scenes": 64, "batch": 8, "task_steps": 3, "tune_steps": 2, "token_steps": 2,
            "mask_steps": 2, "test_scenes": 20}  # fmt: skip
HEADS = {"words": len(scenes.WORDS), "match": 2, "nouns": 11, "pixels": 432, "to_text": 64, "to_image": 64}


def model() -> Encoder:
    return Encoder(Shape(joint=2, length=questions.LENGTH, heads=HEADS), 0)


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
    made = Encoder(Shape(joint=2, tokens=16, values=108, length=masks.PLACED), 0)
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
    chosen = ["scratch", "MLM+ITM+CMCL", "region", "grid", "text, span", "picture, random"]
    runs = [tasks.run(shard) for shard in records.shards({arm: tasks.ARMS[arm] for arm in chosen}, SETTINGS)]
    assert {r["study"] for r in runs} == set(tasks.METRICS)
    assert records.costs(runs).loc["scratch", "passes"] == 2 < records.costs(runs).loc["MLM+ITM+CMCL", "passes"]
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
