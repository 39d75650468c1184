"""CLIP and LLaVA: encoding, what is frozen, resume and double runs to the bit, published layouts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mmlib.errors import UserError
from mmlib.formats.llava import IMAGE_MARK, Record, Turn
from mmlib.models import align, clip, fit, llava, lookups
from mmlib.world import pool, vocabulary
from mmlib.world.language import DIGITS
from mmlib.world.nouns import CELLS, by_name
from mmlib.world.questions import box_text, wordings
from mmlib.world.scenes import draw_scenes
from tests.world.conftest import DATA
from tests.world.conftest import renderer as renderer  # the fixture

SCENES = draw_scenes("train", 24, 0)
TOKENIZER = vocabulary.build_tokenizer()
LLAVA = {"width": 32, "layers": 1}
ADAMW = {"muon_learning_rate": 0.0}


def small_clip(seed=0):
    return clip.build_clip(TOKENIZER, 16, 2, 32, seed)


def small_llava(seed=0):
    return llava.build_llava(small_clip(), TOKENIZER, LLAVA, seed)


def test_no_word_of_the_world_is_unknown():
    known = set(vocabulary.words())
    assert len(known) == len(vocabulary.words()) == len(TOKENIZER)
    for seed in (0, 7):
        for record in pool.build(draw_scenes("train", 300, seed), 400, seed):
            for turn in record.turns:
                ids = TOKENIZER(turn.text, add_special_tokens=False).input_ids
                assert TOKENIZER.pad_token_id not in ids, turn.text


def test_boxes_become_single_tokens_and_come_back():
    text = "box [0.33,0.68,0.64,0.99] ?"
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.convert_ids_to_tokens(ids) == ["box", "[", "0.33", ",", "0.68", ",", "0.64", ",", "0.99", "]", "?"]
    assert TOKENIZER.eos_token_id != 2, "transformers' CLIP would pool another token"


def test_only_answers_have_labels():
    turns = (Turn("human", f"{IMAGE_MARK}\nwhere is the dog ?"), Turn("gpt", "north"), Turn("human", "is it ?"),
             Turn("gpt", "yes"))  # fmt: skip
    ids, labels = llava.encode_turns(TOKENIZER, turns, 9)
    words = TOKENIZER.convert_ids_to_tokens(ids)
    assert words.count(IMAGE_MARK) == 9 and words[0] == "<bos>" and words[-1] == "<eos>"
    kept = [word for word, label in zip(words, labels, strict=True) if label != llava.IGNORED]
    assert kept == ["north", "<eos>", "yes", "<eos>"]
    assert all(label in (i, llava.IGNORED) for i, label in zip(ids, labels, strict=True))


def _right(scene, kind, *asked):
    """The answer to a look-up, from the graph and the table of nouns alone."""
    cell = {o.cell: o for o in scene.objects}
    thing = {o.where: o for o in scene.objects} | {o.noun: o for o in scene.objects}
    if kind == "a":  # a list of options, then `letter` and one of them
        return asked[asked.index(asked[-1]) - 2] if asked.index(asked[-1]) > 2 else "a"
    if asked[-1] == "odd":
        kinds = [by_name()[noun].category for noun in (kind, *asked[:-1])]
        return next(noun for noun in (kind, *asked[:-1]) if kinds.count(by_name()[noun].category) == 1)
    if "more" in asked:
        words = (kind, *asked[: asked.index("more")])
        return "yes" if words.count(asked[-2]) > words.count(asked[-1]) else "no"
    if kind == "find" and asked != ("sign",):
        return next((o.where for o in scene.objects if set(asked) <= {o.noun, o.colour}), "none")
    if kind == "name" and asked[0] not in thing:
        return "sign" if scene.sign and scene.sign.where == asked[0] else "none"
    if kind in ("left", "above"):
        first, second = (thing[noun].cell for noun in asked)
        return "yes" if (first % 3 < second % 3 if kind == "left" else first // 3 < second // 3) else "no"
    if kind == "right":
        at = thing[asked[0]].cell + 1
        return cell[at].noun if at % 3 and at in cell else "none"
    if kind == "box":
        return " ".join(box_text(thing[asked[0]].box).replace(",", " , ").replace("[", "[ ").replace("]", " ]").split())
    noun = by_name()[thing[asked[0]].noun if asked[0] in CELLS and asked[0] in thing else asked[0]] if (
        kind in ("kind", "place", "hold")
    ) else None  # fmt: skip
    return {
        "find": lambda: scene.sign.where, "read": lambda: scene.sign.word, "name": lambda: thing[asked[0]].noun,
        "color": lambda: thing[asked[0]].colour, "size": lambda: thing[asked[0]].size,
        "count": lambda: DIGITS[sum(o.noun == asked[0] for o in scene.objects)],
        "kind": lambda: noun.category, "place": lambda: noun.place, "hold": lambda: noun.held,
    }[kind]()  # fmt: skip


def _lookups_of(scene, seed, simple):
    """(what is asked, answer) of a row, split where labels begin and end."""
    ids, labels = lookups.dense_row(TOKENIZER, scene, random.Random(seed), 9, simple)
    words, asked, answer = TOKENIZER.convert_ids_to_tokens(ids)[11:], [], []
    for word, label, i in zip(words, labels[11:], ids[11:], strict=True):
        assert label in (i, llava.IGNORED)
        if label == llava.IGNORED and answer:
            yield asked, " ".join(answer)
            asked, answer = [], []
        (answer if label == i else asked).append(word)
    yield asked, " ".join(answer)


def test_lookups_are_right_by_the_graph():
    kinds = {True: set(), False: set()}
    for scene in SCENES:
        for seed in range(30):
            for simple in kinds:
                for asked, answer in _lookups_of(scene, seed, simple):
                    assert answer == _right(scene, *asked), (asked, answer)
                    text = asked[-1] == "odd" or "more" in asked
                    kinds[simple].add(("odd" if asked[-1] == "odd" else "more") if text else asked[0])
    assert kinds[True] == {"find", "name", "read", "color", "size"}
    assert kinds[False] == kinds[True] | {
        "right",
        "left",
        "above",
        "count",
        "kind",
        "box",
        "place",
        "hold",
        "a",
        "odd",
        "more",
    }


def test_plain_questions_are_of_known_words_in_wordings_that_nobody_else_uses():
    elsewhere = {text for kind in wordings().values() for part in kind.values() for text in part}
    plain = [text for texts in lookups.PLAIN.values() for text in texts]
    assert not set(plain) & elsewhere and len(set(plain)) == len(plain)
    for scene in SCENES:
        ids, labels = lookups.dialogue_row(TOKENIZER, scene, random.Random(scene.id), 9)
        assert TOKENIZER.pad_token_id not in ids and labels.count(TOKENIZER.eos_token_id) == lookups.PLAIN_TURNS
        assert sum(label != llava.IGNORED for label in labels) == 2 * lookups.PLAIN_TURNS  # a word and an end each


def test_padding_changes_nothing():
    model = small_llava().eval()
    rows = [
        llava.encode_turns(TOKENIZER, (Turn("human", f"{IMAGE_MARK}\n{q}"),), 9)
        for q in ("is it ?", "where is the dog ?")
    ]
    pictures = torch.randn(2, 3, 72, 72)

    def last(batch, at, picture):
        batch.pop("labels")
        with torch.no_grad():
            return model(**batch, pixel_values=picture).logits[:, at]

    alone = last(llava.pad_batch(rows[:1], 0), len(rows[0][0]) - 1, pictures[:1])
    left = last(llava.pad_batch(rows, 0, left=True), -1, pictures)
    right = last(llava.pad_batch(rows, 0), len(rows[0][0]) - 1, pictures)
    assert torch.allclose(alone[0], left[0], atol=1e-5) and torch.allclose(alone[0], right[0], atol=1e-5)


def test_the_tower_is_the_clip_s_and_stays_frozen(renderer):
    contrastive = small_clip()
    model = llava.build_llava(contrastive, TOKENIZER, LLAVA, 0)
    images = renderer.render_all(SCENES)
    with torch.no_grad():
        layers = contrastive.vision_model(clip.pixels(images), output_hidden_states=True).hidden_states
    assert torch.equal(llava.patches(model, images), torch.cat([layers[0][:, 1:], layers[-2][:, 1:]], dim=-1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    align.train_stage1(model, TOKENIZER, SCENES, images, {"steps": 2, "batch": 4, "learning_rate": 0.01, **ADAMW}, 0)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("vision_tower" in name or "projector" in name for name in moved)
    assert any("layers.0" in name for name in moved)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert any("projector" in name for name in trained) and not any("vision_tower" in name for name in trained)


def test_the_projector_learns_what_is_in_a_cell(renderer):
    model, images = small_llava(), renderer.render_all(SCENES)
    settings = {"align_steps": 1, "align_batch": 8, "align_learning_rate": 0.01, "align_muon_learning_rate": 0.01}
    first = align.align_projector(model, TOKENIZER, SCENES, images, settings, 0)
    assert align.align_projector(model, TOKENIZER, SCENES, images, {**settings, "align_steps": 60}, 0) < 0.8 * first
    assert align.cell_words(SCENES[0], SCENES[0].objects[0].cell)[2] == SCENES[0].objects[0].noun


CLIP_SETTINGS = {"texts": 2, "steps": 6, "batch": 8, "learning_rate": 1e-3, "muon_learning_rate": 1e-3}


def trained_clip(renderer, scratch=None, **changes):
    model = small_clip()
    curve = clip.train_clip(model, TOKENIZER, SCENES, renderer, {**CLIP_SETTINGS, **changes}, 0, scratch)
    return model, curve


def same(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_two_runs_give_the_same_bits(renderer):
    first, second = trained_clip(renderer)[0], trained_clip(renderer)[0]
    assert same(first, second) and not same(first, small_clip())


def test_a_killed_run_goes_on_to_the_same_bits(renderer, tmp_path, monkeypatch):
    wanted, _ = trained_clip(renderer)
    calls, pixels = [], clip.pixels

    def dies(images):
        calls.append(len(images))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return pixels(images)

    real = fit.fit
    monkeypatch.setattr(clip, "fit", lambda *args, **kwargs: real(*args, **kwargs, save_every=2))
    monkeypatch.setattr(clip, "pixels", dies)
    with pytest.raises(KeyboardInterrupt):
        trained_clip(renderer, tmp_path / "scratch")
    assert list((tmp_path / "scratch").glob("checkpoint-*"))
    calls.extend([0] * 10)
    resumed, _ = trained_clip(renderer, tmp_path / "scratch")
    assert len(calls) - 15 < 6, "it began anew"
    assert same(resumed, wanted) and not (tmp_path / "scratch").exists()


def test_stage_two_learns_its_records(renderer):
    model = small_llava()
    records = [Record(str(i), f"coco/{s.id}.png", (Turn("human", f"{IMAGE_MARK}\nwhat is the background ?"),
                      Turn("gpt", s.background)), "vqav2") for i, s in enumerate(SCENES)]  # fmt: skip
    records.append(
        Record("t", None, (Turn("human", "what kind of thing is a dog ?"), Turn("gpt", "animal")), "sharegpt")
    )
    images = align.images_of(records, SCENES, renderer)
    settings = {"steps": 75, "batch": 8, "learning_rate": 0.01, **ADAMW}
    curve = align.train_stage2(model, TOKENIZER, records, images, settings, 0)
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]
    said = llava.answer(
        model, TOKENIZER, clip.pixels(renderer.render_all(SCENES[:2])), ["what is the background ?"] * 2, 2
    )
    assert all(len(text.split()) <= 2 for text in said)
    with pytest.raises(UserError, match="1 pictures and 2 questions"):
        llava.answer(model, TOKENIZER, torch.zeros(1, 3, 72, 72), ["a", "b"], 2)


def test_published_layouts_open_through_the_same_functions(tmp_path):
    contrastive, model = small_clip(), small_llava()
    contrastive.save_pretrained(tmp_path / "clip")
    model.save_pretrained(tmp_path / "llava")
    assert same(clip.open_clip(tmp_path / "clip"), contrastive)
    opened = llava.open_llava(tmp_path / "llava")
    assert same(opened, model) and not any(p.requires_grad for p in opened.model.vision_tower.parameters())
    assert {p.suffix for p in Path(tmp_path).rglob("*.*")} <= {".json", ".safetensors", ".jinja"}
    for open_it in (clip.open_clip, llava.open_llava):
        with pytest.raises(UserError, match="lacks a revision of 40 hex digits"):
            open_it("openai/clip-vit-large-patch14-336")
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad/pytorch_model.bin").write_bytes(b"x")
        with pytest.raises(UserError, match="is a pickle"):
            open_it(tmp_path / "bad")


def test_pictures_and_texts_that_belong_together_are_found_after_training(renderer):
    model, curve = trained_clip(renderer, steps=60, batch=16, learning_rate=3e-3)
    assert curve[-1]["loss"] < curve[0]["loss"]
    images = renderer.render_all(SCENES)
    table = clip.similarity(model, TOKENIZER, images, [texts[0] for texts in clip.tag_texts(SCENES, 1, 0)])
    assert table.shape == (24, 24) and np.abs(table).max() <= 1 + 1e-5
    assert (table.argmax(1) == np.arange(24)).mean() > 4 / 24


def test_epochs_use_every_scene_before_any_twice():
    order = clip.epochs(5, 12, 0)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and clip.epochs(5, 12, 0) == order
    assert DATA.name == "data"
