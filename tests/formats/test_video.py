"""MSRVTT, MSVD, TGIF-QA: public layouts in and out, defects counted."""

from __future__ import annotations

import json

import pytest

from mmlib.errors import UserError
from mmlib.formats import video
from mmlib.formats.reading import Skips
from mmlib.formats.video import CaptionedVideo, VideoQuestion


def dump(path, obj):
    path.write_text(json.dumps(obj))
    return path


def test_msrvtt(tmp_path):
    rows = [
        {"url": "", "video_id": name, "start time": 1.0, "end time": 2.0, "split": split, "id": i}
        for i, (name, split) in enumerate([("video0", "train"), ("video1", "test"), ("video2", "odd")])
    ]
    sentences = [{"sen_id": 0, "video_id": "video0", "caption": "a car is shown"},
                 {"sen_id": 1, "video_id": "video0", "caption": "a man drives"},
                 {"sen_id": 2, "video_id": "video9", "caption": "nobody knows"}]  # fmt: skip
    path, skips = dump(tmp_path / "MSRVTT_data.json", {"info": {}, "videos": rows, "sentences": sentences}), Skips()
    videos = video.read_msrvtt(path, skips)
    assert videos == [CaptionedVideo("video0", ("a car is shown", "a man drives"), "train")]
    assert skips.counts == {"unknown split `odd`": 1, "captions of an unknown video": 1, "no caption": 1}
    video.write_msrvtt(path, videos)
    assert video.read_msrvtt(path, Skips()) == videos
    split = tmp_path / "MSRVTT_JSFUSION_test.csv"
    split.write_text("key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person is connecting something\n")
    assert video.read_split(split) == ["video9770"]


def test_msvd(tmp_path):
    captions = dump(tmp_path / "raw-captions.json", {"a_1_2": [["a", "dog", "runs"], ["dog"]], "b_0_9": []})
    ids, skips = tmp_path / "train_list.txt", Skips()
    ids.write_text("a_1_2\nb_0_9\nc_0_1\n")
    videos = video.read_msvd(captions, ids, skips)
    assert videos == [CaptionedVideo("a_1_2", ("a dog runs", "dog"))] and skips.counts == {"no caption": 2}
    video.write_msvd(captions, ids, videos)
    assert video.read_msvd(captions, ids, Skips()) == videos
    with pytest.raises(UserError, match="is a pickle, which can run code"):
        video.read_msvd(tmp_path / "raw-captions.pkl", ids, skips)
    mapping = tmp_path / "youtube_mapping.txt"
    mapping.write_text("-4wsuPCjDBc_5_15 vid1\n")
    assert video.read_youtube_mapping(mapping) == {"vid1": "-4wsuPCjDBc_5_15"}
    mapping.write_text("one two three\n")
    with pytest.raises(UserError, match="does not have two fields"):
        video.read_youtube_mapping(mapping)


def test_video_questions(tmp_path):
    rows = [{"answer": "couch", "category_id": 14, "id": 158581, "question": "what does a person do?",
             "video_id": 6513}, {"id": 1, "question": "x", "answer": "y", "video_id": "video1"}]  # fmt: skip
    path, skips = dump(tmp_path / "test_qa.json", rows), Skips()
    questions = list(video.read_video_qa(path, skips))
    assert questions == [VideoQuestion("video6513", "what does a person do?", "couch")]
    assert skips.counts == {"`video_id` is of type str": 1}
    assert video.write_video_qa(path, questions) == 1 and list(video.read_video_qa(path, skips)) == questions


ROWS = {
    "frameqa": ("tumblr_a\twhat is the color ?\tred\t2\tID1\t7\ta red car",
                VideoQuestion("tumblr_a", "what is the color ?", "red", "color")),
    "count": ("tumblr_a\thow many times ?\t3\tID1\t7", VideoQuestion("tumblr_a", "how many times ?", "3", "count")),
    "action": ("tumblr_a\twhat does it do ?\tnod\twave\tspin\trun\tsit\t2\tID1\t7",
               VideoQuestion("tumblr_a", "what does it do ?", "2", "action", ("nod", "wave", "spin", "run", "sit"))),
    "transition": ("tumblr_a\twhat then ?\tnod\twave\tspin\trun\tsit\t0\tID1\t7",
                   VideoQuestion("tumblr_a", "what then ?", "0", "transition", ("nod", "wave", "spin", "run", "sit"))),
}  # fmt: skip


@pytest.mark.parametrize("task", video.TGIF_COLUMNS)
def test_tgif(task, tmp_path):
    path, skips = tmp_path / f"Test_{task}_question.csv", Skips()
    line, question = ROWS[task]
    path.write_text("\t".join(video.TGIF_COLUMNS[task]) + f"\n{line}\ntumblr_b\tcut off\n")
    assert list(video.read_tgif(path, task, skips)) == [question] and skips.counts == {"row too short": 1}
    video.write_tgif(path, task, [question])
    assert list(video.read_tgif(path, task, Skips())) == [question]
    path.write_text(path.read_text().replace("\t", ","))
    with pytest.raises(UserError, match="has no column"):
        list(video.read_tgif(path, task, skips))


def test_tgif_defects(tmp_path):
    path, skips = tmp_path / "a.csv", Skips()
    path.write_text("\t".join(video.TGIF_COLUMNS["frameqa"]) + "\ng\tq\ta\t9\tv\tk\td\n")
    assert not list(video.read_tgif(path, "frameqa", skips)) and skips.counts == {"unknown type `9`": 1}
    path.write_text("\t".join(video.TGIF_COLUMNS["action"]) + "\ng\tq\t1\t2\t3\t4\t5\tsix\tv\tk\n")
    assert not list(video.read_tgif(path, "action", skips)) and skips.counts["answer is not an index"] == 1
    with pytest.raises(UserError, match="unknown TGIF task `dance`"):
        list(video.read_tgif(path, "dance", skips))
