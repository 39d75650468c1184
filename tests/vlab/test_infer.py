"""One file, three tasks: the same tokens as the study's path, bad files and unknown words named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmlib.errors import UserError
from mmlib.vlab import clip_base, infer, tasks
from mmlib.vlab.model import Arm, Vlab
from mmlib.world.clips import render_clip


@pytest.fixture(scope="module")
def checkpoint(small_clip, sequences):
    return infer.Checkpoint(Vlab(small_clip, Arm("tconv", (1,), hidden=8), 0, 0).eval(), sequences)


@pytest.fixture
def folder(renderer, pairs, tmp_path):
    clip = render_clip(renderer, pairs[0])
    for number, frame in enumerate(clip):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    return tmp_path, clip


def test_a_folder_of_frames_is_what_the_study_sees(checkpoint, small_clip, folder):
    path, clip = folder
    assert np.array_equal(infer.read_clip(path), clip)
    lower = clip_base.lower_features(small_clip, clip[None], 1)
    with torch.inference_mode():
        wanted = checkpoint.model.video(lower, 1)
    torch.testing.assert_close(infer.see(checkpoint, clip)["video"], wanted, atol=1e-5, rtol=1e-5)


def test_a_report_has_caption_answers_ranks_and_unknown_words(checkpoint, sequences, folder):
    path, clip = folder
    captions = ["the dog moves left , all on grass", "a zebra moves right on grass"]
    lines = infer.report(checkpoint, path, ["where does it go ?"], captions)
    seen = infer.see(checkpoint, clip)
    said = tasks.generate(checkpoint.model, sequences, seen, ["where does it go ?"], tasks.ANSWER_TOKENS)[0]
    assert lines[0].startswith("caption: ") and lines[1] == f"where does it go ? {said}"
    scores = [float(line.split()[0]) for line in lines[2:4]]
    assert scores == sorted(scores, reverse=True) and {line.split(" ", 1)[1] for line in lines[2:4]} == set(captions)
    assert lines[-1].startswith("words that the model never met: ") and "zebra" in lines[-1]
    assert len(infer.report(checkpoint, path, [], [])) == 1


def test_bad_files_are_named(tmp_path, capsys):
    (tmp_path / "text.gif").write_text("<html>404</html>")
    (tmp_path / "empty").mkdir()
    for name, reason in (("text.gif", "unreadable"), ("empty", "no frames"), ("gone.gif", "no file")):
        with pytest.raises(UserError, match=f"{name} cannot be read: {reason}"):
            infer.read_clip(tmp_path / name)
    assert infer.main([str(tmp_path / "gone.gif"), "--arm", "conv"]) == 2
    assert "unknown arm `conv`" in capsys.readouterr().err
