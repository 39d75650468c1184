"""COCO captions, VQA v2, Visual Genome, CC3M and CC3M-QA-DC: public layouts in and out, defects counted."""

from __future__ import annotations

import binascii
import json

import pytest

from mmlib.errors import UserError
from mmlib.formats import cc3m, coco, visual_genome, vqa
from mmlib.formats.reading import Skips


def dump(path, obj):
    path.write_text(json.dumps(obj))
    return path


def test_coco_captions(tmp_path):
    path, skips = tmp_path / "captions_val2014.json", Skips()
    dump(path, {
        "info": {"year": 2014}, "licenses": [{"id": 1}],
        "images": [{"license": 3, "file_name": "COCO_val2014_000000391895.jpg", "height": 360, "width": 640,
                    "date_captured": "2013", "id": 391895}, {"id": 5}],
        "annotations": [{"image_id": 391895, "id": 770337, "caption": "A man with a red helmet."},
                        {"image_id": 391895, "id": 2, "caption": None}],
    })  # fmt: skip
    images, captions = list(coco.read_images(path, skips)), list(coco.read_captions(path, skips))
    assert images == [coco.CocoImage(391895, "COCO_val2014_000000391895.jpg", 640, 360)]
    assert captions == [coco.CocoCaption(770337, 391895, "A man with a red helmet.")]
    assert skips.counts == {"no `file_name`": 1, "`caption` is of type NoneType": 1}
    coco.write_captions(path, images, captions)
    assert list(coco.read_images(path, Skips())) == images and list(coco.read_captions(path, Skips())) == captions


def test_vqa_v2(tmp_path):
    answers = [{"answer": "net", "answer_confidence": "maybe", "answer_id": i} for i in range(1, 11)]
    questions = dump(tmp_path / "q.json", {"info": {}, "questions": [
        {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000},
        {"image_id": 458752, "question": "What?", "question_id": 9}]})  # fmt: skip
    annotations = dump(tmp_path / "a.json", {"annotations": [
        {"question_type": "what is this", "multiple_choice_answer": "net", "answers": answers, "image_id": 458752,
         "answer_type": "other", "question_id": 458752000},
        {"question_type": "", "multiple_choice_answer": "x", "answers": [], "image_id": 1, "answer_type": "other",
         "question_id": 3},
        {"question_type": "", "multiple_choice_answer": "x", "answers": answers, "image_id": 1,
         "answer_type": "essay", "question_id": 4},
        {"question_type": "", "multiple_choice_answer": "x", "answers": answers, "image_id": 1,
         "answer_type": "number", "question_id": 5}]})  # fmt: skip
    skips = Skips()
    pairs = list(vqa.join(vqa.read_questions(questions, skips), vqa.read_annotations(annotations, skips), skips))
    assert [(q.question_id, a.answers) for q, a in pairs] == [(458752000, ("net",) * 10)]
    assert skips.counts == {"no answers": 1, "unknown answer type `essay`": 1, "question without annotation": 1,
                            "annotation without question": 1}  # fmt: skip
    paths = vqa.write(tmp_path, pairs, "val2014")
    assert [p.name for p in paths] == ["v2_OpenEnded_mscoco_val2014_questions.json",
                                       "v2_mscoco_val2014_annotations.json"]  # fmt: skip
    again = vqa.join(vqa.read_questions(paths[0], skips), vqa.read_annotations(paths[1], skips), skips)
    assert list(again) == pairs
    assert json.loads(paths[1].read_text())["annotations"][0]["answers"][9]["answer_id"] == 10
    assert vqa.image_name(42, "val") == "COCO_val2014_000000000042.jpg"


def region(**changes):
    return {"region_id": 1382, "image_id": 1, "phrase": "the clock is green ", "x": 421, "y": 57, "width": 82,
            "height": 139, **changes}  # fmt: skip


def test_visual_genome_regions(tmp_path):
    path = dump(tmp_path / "region_descriptions.json", [{"id": 1, "regions": [
        region(), region(region_id=2, x=-3), region(region_id=3, width=900), region(region_id=4, x=900),
        region(region_id=5, width=0), region(region_id=6, phrase=None)]},
        {"id": 8, "regions": [region(region_id=7, image_id=8)]}])  # fmt: skip
    skips = Skips()
    found = {r.region_id: r for r in visual_genome.read_regions(path, skips, {1: (800, 600)})}
    assert found[1382] == visual_genome.Region(1382, 1, "the clock is green", 421, 57, 82, 139)
    assert (found[2].x, found[2].width) == (0, 79) and found[3].width == 379 and len(found) == 3
    assert skips.counts == {"negative corner clipped": 1, "box outside the image clipped": 1, "empty box": 2,
                            "`phrase` is of type NoneType": 1, "dead image": 1}  # fmt: skip
    assert len(list(visual_genome.read_regions(path, Skips()))) == 5, "without sizes nothing is known to be outside"
    visual_genome.write_regions(path, found.values())
    assert list(visual_genome.read_regions(path, Skips())) == list(found.values())
    with pytest.raises(UserError, match="an image has no list `qas`"):
        list(visual_genome.read_questions(path, skips))


def test_visual_genome_questions_and_mapping(tmp_path):
    path = dump(tmp_path / "question_answers.json", [{"id": 1, "qas": [
        {"a_objects": [], "question": "What color is the clock?", "image_id": 1, "qa_id": 986768, "answer": "Green.",
         "q_objects": []}, {"qa_id": 4, "question": "What?"}]}])  # fmt: skip
    skips = Skips()
    questions = list(visual_genome.read_questions(path, skips))
    assert questions == [visual_genome.GenomeQuestion(986768, 1, "What color is the clock?", "Green.")]
    assert skips.counts == {"no `answer`": 1}
    assert visual_genome.write_questions(path, questions) == 1
    assert list(visual_genome.read_questions(path, skips)) == questions
    assert visual_genome.read_mapping(dump(path, {"986768": 1382})) == {986768: 1382}
    with pytest.raises(UserError, match="not a mapping of ids"):
        visual_genome.read_mapping(dump(path, {"a": 1}))


def test_cc3m_rows(tmp_path):
    path, skips = tmp_path / "Train_GCC-training.tsv", Skips()
    path.write_text("a very typical bus station\thttp://a.b/c.jpg\nno url\n\thttp://x\ny\t\n")
    images = list(cc3m.read_tsv(path, skips))
    assert images == [cc3m.WebImage("a very typical bus station", "http://a.b/c.jpg")]
    assert images[0].img_id == str(binascii.crc32(b"http://a.b/c.jpg"))
    assert skips.counts == {"row without two fields": 1, "no caption": 1, "no url": 1}
    cc3m.write_tsv(path, images)
    assert list(cc3m.read_tsv(path, skips)) == images
    with pytest.raises(UserError, match="has a tab"):
        cc3m.write_tsv(path, [cc3m.WebImage("a\tb", "u")])
    assert list(cc3m.read_tsv(path, skips)) == images, "a failed writer destroyed the file"


def test_cc3m_qa_dc(tmp_path):
    full = {"question": "how many pictures are on the wall ?", "answer": "two", "prob": 0.9, "type": "how",
            "object": [0, 10, 224, 200], "region_description": "pictures on a wall", "img_id": "12",
            "question_id": 5}  # fmt: skip
    binary = {"question": "does the helmet look orange ?", "answer": "yes", "type": "yes", "img_id": "12",
              "question_id": 6}  # fmt: skip
    for part, rows in (("QA", [full, binary, {"question": "x"}]), ("DC", [{"object": [-4, 0, 300, 9],
            "region_description": "a door"}, {"object": [5, 5, 5, 9], "region_description": "b"}])):  # fmt: skip
        (tmp_path / part).mkdir()
        dump(tmp_path / part / "12.json", rows)
    (tmp_path / "QA/13.json").write_text("[{")
    skips = Skips()
    images = list(cc3m.read_folder(tmp_path, skips))
    assert [name for name, _, _ in images] == ["12", "13"]
    first, second = images[0][1]
    assert first.object == (0, 10, 224, 200) and second.prob is None and second.object is None
    assert images[0][2] == [cc3m.DenseCaption((0, 0, 224, 9), "a door")]
    assert skips.counts == {"no `img_id`": 1, "box outside the image clipped": 1, "empty box": 1,
                            "damaged QA file": 1, "no DC file": 1}  # fmt: skip
    cc3m.write_folder(tmp_path / "again", images)
    assert list(cc3m.read_folder(tmp_path / "again", Skips())) == images
    assert json.loads((tmp_path / "again/QA/12.json").read_text()) == [full, binary]
