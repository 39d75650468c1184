"""Stage 2 and its tests: who is trained on what, and that scores are the judges' own."""

from __future__ import annotations

import pytest

from mmlib.errors import UserError
from mmlib.formats.llava import IMAGE_MARK, Record, Turn
from mmlib.models import align, clip, instruct, llava
from mmlib.world import benchmarks, vocabulary
from mmlib.world.scenes import draw_scenes
from tests.world.conftest import renderer as renderer  # the fixture

TOKENIZER = vocabulary.build_tokenizer()
SCENES = draw_scenes("train", 12, 0)
RECORDS = [
    Record(f"vqa-{i}", f"coco/{s.id}.png", (Turn("human", f"{IMAGE_MARK}\nwhat is the background ?"),
           Turn("gpt", s.background)), "vqav2") for i, s in enumerate(SCENES)
]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    tower = clip.build_clip(TOKENIZER, 16, 2, 21, 0)
    llava.build_llava(tower, TOKENIZER, {"width": 32, "layers": 1}, 0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def built():
    scenes = draw_scenes("test", 400, 0)
    return {name: benchmarks.build(benchmarks.by_name_of(name), scenes, 8, 0) for name in ("color", "referring", "odd")}


def test_a_part_is_seeded_and_in_order_and_refused_when_impossible():
    part = instruct.random_part(RECORDS, 0.5, 1)
    assert len(part) == 6 and part == sorted(part, key=RECORDS.index) == instruct.random_part(RECORDS, 0.5, 1)
    assert part != instruct.random_part(RECORDS, 0.5, 2) and instruct.random_part(RECORDS, 1.0, 0) == RECORDS
    for share in (0, 1.5):
        with pytest.raises(UserError, match="a share of"):
            instruct.random_part(RECORDS, share, 0)


def test_right_answers_score_one_and_shuffled_ones_do_not(built):
    right = {name: [item.answer for item in part] for name, part in built.items()}
    assert all(set(values) == {1.0} for values in instruct.scores(right, built).values())
    wrong = {name: [*texts[1:], texts[0]] for name, texts in right.items()}
    assert all(sum(values) < 8 for values in instruct.scores(wrong, built).values())
    with pytest.raises(ValueError):
        instruct.scores({**right, "odd": right["odd"][1:]}, built)


def test_tuning_learns_and_every_item_gets_an_answer(source, built, renderer):
    pictures = {record.image: renderer.render(scene) for record, scene in zip(RECORDS, SCENES, strict=True)}
    settings = {"steps": 60, "batch": 6, "learning_rate": 0.01, "muon_learning_rate": 0.0, "rehearsed": 0}
    model, curve = instruct.tune(source, RECORDS, pictures, settings, 0, renderer)
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]
    said = instruct.answers(model, TOKENIZER, built, renderer)
    assert {name: len(texts) for name, texts in said.items()} == dict.fromkeys(built, 8)


def test_what_is_rehearsed_is_of_stage_one_in_batches_of_its_own(source, renderer, monkeypatch):
    known = instruct.rehearsal(TOKENIZER, 8, 0, renderer)
    assert len(known) == 8 and all(len(ids) == len(labels) for (ids, labels), _ in known)
    assert all(TOKENIZER.convert_ids_to_tokens(ids)[:3] == ["<bos>", "user", "<image>"] for (ids, _), _ in known)
    seen = []
    monkeypatch.setattr(align, "fit", lambda model, collate, **kw: seen.extend(
        collate(list(range(4 * step, 4 * step + 4)))["input_ids"] for step in range(kw["steps"])))  # fmt: skip
    pictures = {record.image: renderer.render(scene) for record, scene in zip(RECORDS, SCENES, strict=True)}
    settings = {"steps": 5, "batch": 4, "learning_rate": 0.01, "muon_learning_rate": 0.0}
    align.train_stage2(llava.open_llava(source), TOKENIZER, RECORDS, pictures, settings, 0, known[:8])
    asked = TOKENIZER.convert_tokens_to_ids("background")
    of_records = [bool((ids == asked).any(1).all()) for ids in seen]
    assert of_records.count(True) == 3 and of_records.count(False) == 2  # two batches of known rows
    tokens = sorted(tuple(row.tolist()) for ids, own in zip(seen, of_records, strict=True) if own for row in ids)
    assert len(tokens) == len(RECORDS)  # every record once: rehearsals take none of their turns


def test_all_benchmarks_are_built_from_test_scenes():
    items = benchmarks.build_all(1200, 20, 0)
    assert list(items) == [b.name for b in benchmarks.BENCHMARKS] and {len(part) for part in items.values()} == {20}
    assert all(item.scene.id.startswith("test") for part in items.values() for item in part)
