"""The world's files in public layouts are read by the public readers, without a defect, and tell the truth."""

from __future__ import annotations

import pytest

from mmlib.errors import UserError
from mmlib.formats import cc3m, coco, visual_genome, vqa
from mmlib.formats.reading import Skips
from mmlib.world import export, language
from mmlib.world.questions import unique
from mmlib.world.scenes import SIDE, draw_scenes

SCENES = draw_scenes("train", 40, 0)


@pytest.fixture()
def skips():
    counted = Skips()
    yield counted
    assert not counted.counts, counted


def test_coco_has_five_captions_that_name_every_thing(tmp_path, skips):
    path = tmp_path / "captions.json"
    assert export.write_coco(path, SCENES, 0) == 5 * len(SCENES)
    images, captions = list(coco.read_images(path, skips)), list(coco.read_captions(path, skips))
    assert [image.file_name for image in images] == [f"{scene.id}.png" for scene in SCENES]
    for caption in captions:
        assert all(thing.noun in caption.caption for thing in SCENES[caption.image_id].objects)
    assert len({caption.id for caption in captions}) == len(captions)


def test_vqa_joins_and_answers_are_right(tmp_path, skips):
    count = export.write_vqa(tmp_path, SCENES, "train2014", 0)
    questions, annotations = sorted(tmp_path.glob("*questions.json")), sorted(tmp_path.glob("*annotations.json"))
    pairs = list(vqa.join(vqa.read_questions(questions[0], skips), vqa.read_annotations(annotations[0], skips), skips))
    assert len(pairs) == count > 2 * len(SCENES)
    kinds = {annotation.answer_type for _, annotation in pairs}
    assert kinds == {"yes/no", "number", "other"} and {len(a.answers) for _, a in pairs} == {10}
    checked = 0
    for question, annotation in pairs:
        scene = SCENES[question.image_id]
        thing = next((o for o in unique(scene) if question.question == f"where is the {o.noun} ?"), None)
        if thing:
            assert annotation.multiple_choice_answer == thing.where and annotation.question_type == "where is the"
            checked += 1
    assert checked


def test_genome_s_boxes_hold_what_the_phrase_says(tmp_path, skips):
    regions, questions = export.write_genome(tmp_path, SCENES, 0)
    sizes = dict.fromkeys(range(len(SCENES)), (SIDE, SIDE))
    read = list(visual_genome.read_regions(tmp_path / "region_descriptions.json", skips, sizes))
    assert len(read) == regions == sum(len(scene.objects) for scene in SCENES)
    for region in read:
        box = (region.x, region.y, region.x + region.width, region.y + region.height)
        assert region.phrase in {language.phrase(o) for o in SCENES[region.image_id].objects if o.box == box}
    assert len(list(visual_genome.read_questions(tmp_path / "question_answers.json", skips))) == questions


def test_alt_text_is_one_line_a_picture(tmp_path, skips):
    assert export.write_web(tmp_path / "cc.tsv", SCENES, 0, noise=0.0) == len(SCENES)
    for image, scene in zip(cc3m.read_tsv(tmp_path / "cc.tsv", skips), SCENES, strict=True):
        assert scene.id in image.url and any(o.noun in image.caption for o in scene.objects)
    with pytest.raises(UserError, match=r"noise of alt-text is 1\.5"):
        export.write_web(tmp_path / "cc.tsv", SCENES, 0, noise=1.5)


def test_what_is_said_about_a_picture_does_not_depend_on_the_others(tmp_path):
    export.write_web(tmp_path / "all.tsv", SCENES, 0, noise=0.5)
    export.write_web(tmp_path / "some.tsv", SCENES[20:], 0, noise=0.5)
    assert (tmp_path / "all.tsv").read_text().endswith((tmp_path / "some.tsv").read_text())
