"""Frames of files: the sampling rules, real animations and folders, and every defect counted."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from mmlib.errors import UserError
from mmlib.formats import video
from mmlib.formats.reading import Skips
from mmlib.formats.video import CaptionedVideo, VideoQuestion
from mmlib.vlab import frames
from mmlib.vlab.frames import read_videos, segments


@pytest.mark.parametrize(
    ("count", "available", "numbers"),
    [(1, 8, [4]), (2, 8, [2, 6]), (4, 8, [1, 3, 5, 7]), (8, 8, [*range(8)]), (5, 3, [0, 1, 2, 2, 2])],
)  # fmt: skip
def test_the_middle_of_each_segment_and_the_last_frame_again(count, available, numbers):
    assert segments(count, available) == numbers


def test_training_draws_one_frame_of_each_segment():
    seen = [segments(4, 22, random.Random(seed)) for seed in range(300)]
    for part, (low, high) in enumerate([(0, 5), (5, 11), (11, 16), (16, 22)]):
        assert {numbers[part] for numbers in seen} == set(range(low, high))
    assert segments(4, 3, random.Random(0)) == [0, 1, 2, 2]
    for bad in ((0, 8), (4, 0)):
        with pytest.raises(UserError, match="frames of a clip of"):
            segments(*bad)


def moving(count, size=(20, 12)):
    """A square that goes right by two pixels a frame on black."""
    clip = np.zeros((count, size[1], size[0], 3), np.uint8)
    for t, frame in enumerate(clip):
        frame[4:8, 2 * t : 2 * t + 4] = (250, 240, 0)
    return clip


@pytest.fixture
def files(tmp_path):
    """Six frames as a GIF and as a folder; an empty folder, a torn GIF, text called .gif, a folder of mixed sizes."""
    clip = [Image.fromarray(frame) for frame in moving(6)]
    clip[0].save(tmp_path / "video1.gif", save_all=True, append_images=clip[1:], duration=100, loop=0)
    for name in ("folder", "empty", "mixed"):
        (tmp_path / name).mkdir()
    for number, image in enumerate(clip):
        image.save(tmp_path / "folder" / f"{number:04d}.png")
        image.resize((20, 12 + number)).save(tmp_path / "mixed" / f"{number:04d}.png")
    (tmp_path / "folder" / "README.txt").write_text("not a frame")
    whole = (tmp_path / "video1.gif").read_bytes()
    (tmp_path / "torn.gif").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.gif").write_text("<html>404</html>")
    return {path.stem: path for path in sorted(tmp_path.iterdir())}


@pytest.mark.parametrize("name", ["video1", "folder"])
def test_what_is_read_is_what_was_written(name, files):
    skips = Skips()
    (seen,) = read_videos({name: files[name]}, 3, skips)
    assert seen.numbers == [1, 3, 5] and not skips.counts and skips.read == 1
    assert seen.frames.shape == (3, 12, 20, 3)
    # A GIF keeps few colours; the square's place must be exact.
    assert np.array_equal(seen.frames[..., 0] > 125, moving(6)[[1, 3, 5]][..., 0] > 125)


def test_defects_are_counted_and_the_run_goes_on(files, tmp_path):
    skips = Skips()
    wanted = {**files, "gone": tmp_path / "gone.gif"}
    read = [seen.video_id for seen in read_videos(wanted, 8, skips)]
    assert read == ["folder", "video1"]
    assert skips.counts["fewer than 8 frames"] == 2 and skips.examples["no frames"] == ["empty"]
    assert skips.examples["no file"] == ["gone"] and skips.examples["frames of different sizes"] == ["mixed"]
    assert sorted(skips.examples["unreadable"]) == ["text", "torn"]
    assert "no frames 1 (empty)" in str(skips)


def test_rows_of_the_readers_get_frames(files, tmp_path):
    """MSRVTT captions, MSRVTT-QA and TGIF-QA files, written and read back, beside videos that are there or not."""
    folder, skips = files["video1"].parent, Skips()
    asked = [VideoQuestion(f"video{i}", "what moves ?", "square") for i in (1, 1, 7)]
    video.write_video_qa(tmp_path / "qa.json", asked)
    rows = list(frames.with_frames(video.read_video_qa(tmp_path / "qa.json", skips), folder, 3, skips))
    assert [row.answer for row, _ in rows] == ["square"] * 2 and rows[0][1] is rows[1][1], "one decoding a video"
    assert rows[0][1].numbers == [1, 3, 5]
    assert skips.examples["no file"] == ["video7"] and skips.examples["row without its video"] == ["video7"]
    tgif = [VideoQuestion("video1", "what moves ?", "square", "object")]
    video.write_tgif(tmp_path / "tgif.csv", "frameqa", tgif)
    ((row, seen),) = frames.with_frames(video.read_tgif(tmp_path / "tgif.csv", "frameqa", skips), folder, 2, skips)
    assert row == tgif[0] and seen.frames.shape == (2, 12, 20, 3)
    told = [CaptionedVideo("video1", ("a square moves",), "test"), CaptionedVideo("folder", (), "test")]
    ((row, _),) = frames.with_frames(told, folder, 2, skips)
    assert row.captions == ("a square moves",) and skips.examples["no caption"] == ["folder"]


def test_a_file_without_a_decoder_is_named_and_one_can_be_passed(tmp_path):
    path = tmp_path / "video2.mp4"
    path.write_bytes(b"....ftypmp42")
    with pytest.raises(UserError, match=r"no decoder for video2\.mp4"):
        list(read_videos({"video2": path}, 2, Skips()))

    class Given:
        def count(self, path):
            return 4

        def read(self, path, numbers):
            return moving(4)[numbers]

    (seen,) = read_videos({"video2": path}, 2, Skips(), decoder=Given())
    assert np.array_equal(seen.frames, moving(4)[[1, 3]])


def test_the_middle_square_at_the_asked_size():
    wide = np.zeros((2, 40, 80, 3), np.uint8)
    wide[:, :, 20:60] = 200
    square = frames.fit_square(wide, 20)
    assert square.shape == (2, 20, 20, 3) and (square[:, 2:-2, 2:-2] == 200).all()
    assert frames.fit_square(wide.transpose(0, 2, 1, 3), 32).shape == (2, 32, 32, 3)
