"""Generate, kill, resume, filter, export, read back; faults of shards and folders are named."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmlib import store
from mmlib.errors import UserError
from mmlib.formats.reading import Skips
from mmlib.jade import dataset, filtering, generate, language
from mmlib.jade.filtering import Counts
from tests.jade import pipeline
from tests.jade.conftest import SIDE


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return pipeline.run(tmp_path_factory.mktemp("whole"))


def files(root):
    return {path.name: path.read_bytes() for path in (root / ".scratch/shards/demo").glob("*.json")}


def test_killed_generation_goes_on_and_ends_with_the_same_bytes(tmp_path, made):
    code = "import sys; from tests.jade.pipeline import run; run(sys.argv[1])"
    here = Path(__file__).parents[2]
    job = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env={**os.environ,
                           "SHARD_SLEEP": "0.7"}, cwd=here, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.time() + 120
    while not files(tmp_path) and time.time() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    early = files(tmp_path)
    assert 1 <= len(early) < 4
    assert pipeline.run(tmp_path) == made
    whole = files(tmp_path)
    assert len(whole) == 4 and all(whole[name] == early[name] for name in early)
    cut = sorted((tmp_path / ".scratch/shards/demo").iterdir())[0]
    cut.write_bytes(cut.read_bytes()[:200])
    assert pipeline.run(tmp_path) == made and files(tmp_path) == whole


def test_other_shards_give_the_same_texts(tmp_path, made):
    other = pipeline.run(tmp_path, per_shard=5)
    for name, boxes in made.items():
        for a, b in zip(boxes, other[name], strict=True):
            assert a["caption"] == b["caption"]
            for x, y in zip(a["asked"], b["asked"], strict=True):
                assert (x["question"], x["answer"]) == (y["question"], y["answer"])
                assert x["prob"] == pytest.approx(y["prob"], abs=1e-4)


def test_questions_are_drawn(made):
    texts = [row["question"] for boxes in made.values() for box in boxes for row in box["asked"]]
    assert len(set(texts)) > len(texts) / 4 and generate.uniforms(0, ["a"]).ne(generate.uniforms(1, ["a"])).any()


def foreign(shard):
    return {"somebody": []}


def named(shard):
    return {name: shard["name"] for name in shard["pictures"]}


def test_a_shard_of_other_pictures_is_refused(tmp_path):
    jobs = [{"name": "x", "pictures": ["a"]}]
    with pytest.raises(ValueError, match="other pictures"):
        generate.run_shards(foreign, jobs, 1, stage="demo", key={}, root=tmp_path, engine="serial")


def test_every_job_gets_its_own_pictures(tmp_path):
    jobs = [{"name": "x", "pictures": ["p", "q", "r"]}, {"name": "y", "pictures": ["p", "q"]}]
    made = generate.run_shards(named, jobs, 2, stage="demo", key={}, root=tmp_path, engine="serial")
    assert made == [{"p": "x 0", "q": "x 0", "r": "x 2"}, {"p": "y 0", "q": "y 0"}]


@pytest.fixture
def exported(tmp_path, made, filter_model, maker):
    """Every second row says what is true, as a trained pair of models would: untrained ones never agree."""
    names, images = list(made), [pipeline.kit()[2][name].image for name in made]
    rows = {name: dataset.questions_of(made[name]) for name in names}
    scenes, draw = {scene.id: scene for scene in pipeline.SCENES}, random.Random(0)
    answers = generate.answer_questions(
        filter_model, maker, np.stack(images), [[r["question"] for r in rows[n]] for n in names]
    )
    for name, given in zip(names, answers, strict=True):
        assert len(given) == len(rows[name])
        for number, (row, (text, _)) in enumerate(zip(rows[name], given, strict=True)):
            row["filter"] = {"independent": [text, 0.5]}
            if number % 2:
                said = language.ask_type(scene := scenes[name], scene.objects[0], row["type"], draw)
                row |= {"question": said.question, "answer": said.answer, "ended": True, "prob": 0.5,
                        "filter": {"independent": [said.answer, 0.5]}}  # fmt: skip
    counts = Counts()
    kept = list(
        filtering.stream(rows.items(), [filtering.unique(), filtering.sanity(), filtering.consistency()], counts)
    )
    folder = tmp_path / "set"
    numbers = dataset.export(folder, [(name, part, dataset.captions_of(made[name])) for name, part in kept], SIDE)
    return folder, kept, counts, numbers


def test_export_reads_back_as_it_was(exported):
    folder, kept, counts, numbers = exported
    table = {line["rule"]: line for line in counts.table()}
    assert table["consistency"]["kept"] == sum(len(rows) for _, rows in kept) == numbers["questions"] > 0
    assert (
        table["unique"]["kept"] == table["sanity"]["entered"]
        and table["sanity"]["kept"] == table["consistency"]["entered"]
    )
    skips, wanted = Skips(), dict(kept)
    back = {image: questions for image, questions, _ in dataset.read(folder, skips)}
    assert not skips.counts and sum(map(len, back.values())) == numbers["questions"]
    for image, questions in back.items():
        assert [(q.question, q.answer, q.prob) for q in questions] == [
            (r["question"], r["answer"], r["prob"]) for r in wanted[image]
        ]
    ids = [q.question_id for questions in back.values() for q in questions]
    assert len(set(ids)) == len(ids)
    tables = dataset.as_datasets(folder)
    assert len(tables["QA"]) == numbers["questions"] and len(tables["DC"]) == numbers["captions"]


def test_missing_cut_and_foreign_files_are_named(exported):
    folder = exported[0]
    path = sorted((folder / "QA").iterdir())[0]
    good = path.read_bytes()
    for damage, state in ((good[:-9], "changed"), (None, "missing")):
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(UserError, match=f"{path.name} is {state}"):
            list(dataset.read(folder, Skips()))
        path.write_bytes(good)
    store.atomic_write(folder / "DC" / "999.json", "[]")
    with pytest.raises(UserError, match=r"999.json is unexpected"):
        list(dataset.read(folder, Skips()))
    with pytest.raises(UserError, match="is not empty"):
        dataset.export(folder, [], SIDE)


def test_pictures_of_one_id_are_refused_and_empty_ones_counted(tmp_path):
    assert (
        dataset.export(tmp_path / "a", [("1", [], []), ("2", [], [((0, 0, 9, 9), "dog")])], SIDE)["without anything"]
        == 1
    )
    with pytest.raises(UserError, match="two pictures have the id 2"):
        dataset.export(tmp_path / "b", [("2", [], [((0, 0, 9, 9), "dog")])] * 2, SIDE)
    assert dataset.public_box((0, 0, 72, 36), 72) == (0, 0, 224, 112)
