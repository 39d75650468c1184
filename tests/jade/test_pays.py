"""Arms of pre-training: what each says of a picture, equal pictures for all, and a test that knows right from wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from mmlib.errors import UserError
from mmlib.jade import corpora, dataset, generate, language, pays, training, truth, weights
from mmlib.jade.batches import Maker
from mmlib.jade.model import Jade, Shape
from mmlib.jade.tokens import Words
from tests.jade.conftest import SIDE, small_model

SHAPE = Shape(width=32, layers=2, region=False)


def rows_about(scene, draw):
    """Questions with true answers, every third with another, and one about what is not there."""
    made = []
    for number, kind in enumerate(language.TYPES):
        said = language.ask_type(scene, draw.choice(scene.objects), kind, draw)
        answer = said.answer if number % 3 else "zebra"
        made.append({"question": said.question, "answer": answer, "type": kind})
    absent = next(noun for noun in language.drawn_nouns() if not scene.count(noun))
    made.append({"question": f"how big is the {absent} ?", "answer": "large", "type": "how"})
    for row in made:
        row |= {"prob": draw.random(), "filter": {"independent": [row["answer"], draw.random()]}, "exists": "yes",
                "box": (0, 0, 9, 9), "verdict": truth.judge(scene, row["question"], row["answer"])}  # fmt: skip
    made[1]["exists"] = "no"
    made[2]["filter"] = {"independent": ["another", 0.5]}
    return made


@pytest.fixture(scope="module")
def scenes():
    return corpora.draw_part("web", 8, 0)


@pytest.fixture(scope="module")
def rows(scenes):
    draw = random.Random(0)
    return [rows_about(scene, draw) for scene in scenes]


def test_what_each_arm_says(scenes, rows):
    said = {whose: pays.questions(whose, rows, scenes, 0) for whose, _ in pays.ARMS.values() if whose}
    sizes = {whose: sum(map(len, texts)) for whose, texts in said.items()}
    assert sizes["consistency"] == sizes["random"] == sizes["shuffled"] == 6 * len(scenes)
    assert sizes["existence"] == 5 * len(scenes) and sizes["one"] == len(scenes)
    assert said["shuffled"][0] == said["consistency"][1] and said["shuffled"][-1] == said["consistency"][0]
    for scene, texts, raw in zip(scenes, said["corrected"], said["consistency"], strict=True):
        assert all(truth.judge(scene, *text) == truth.RIGHT for text in texts)
        kept = {question for question, _ in raw if truth.right_answers(scene, question)}
        assert {question for question, _ in texts} == kept and len(kept) == 5


def test_all_arms_see_the_same_pictures_and_their_own_texts(scenes, rows):
    maker = Maker(Words(SIDE), SHAPE)
    features = torch.arange(len(scenes)).float()[:, None, None].expand(-1, 10, 64)
    corpus = {"scenes": scenes, "features": features, "usable": [1, 3, 4, 6]}
    asked = pays.questions("consistency", rows, scenes, 0)
    dense = [dataset.captions_of([{"box": o.box, "caption": "small dog"} for o in scene.objects]) for scene in scenes]
    settings = {"steps": 2, "batch": 4}
    batches = {}
    for name, texts in (("captions", (None, None)), ("+QA", (asked, None)), ("+QA+DC", (asked, dense))):
        batches[name] = pays._corpus_collate(maker, corpus, *texts, settings, 0)([0, 1, 2, 3])
    seen = batches["captions"]["features"][:, 0, 0].long().tolist()
    assert sorted(seen) == [1, 3, 4, 6]
    assert all(batch["features"][:, 0, 0].long().tolist() == seen for batch in batches.values())
    assert set(batches["captions"]) == {"caption", "features"}
    assert set(batches["+QA+DC"]) == {"caption", "answer", "dense", "features"}
    nothing = pays._corpus_collate(maker, {**corpus, "usable": []}, asked, dense, settings, 0)([0, 1, 2, 3])
    assert set(nothing) == {"caption", "features"}
    for number, prompts in zip(seen, batches["+QA"]["answer"]["prompt"].tolist(), strict=True):
        own = {question for question, _ in asked[number]}
        texts = [maker.words.text(ids).split(" [unused0] ")[1].split(" [SEP]")[0] for ids in prompts]
        assert len(texts) == pays.ASKED and set(texts) <= own


def test_the_test_scores_what_the_model_says(renderer, scenes):
    """Against greedy decoding and the judge, in the wordings that the judge understands."""
    model, maker = small_model(SHAPE, 4), Maker(Words(SIDE), SHAPE)
    images = corpora.pictures(renderer, scenes)
    scores = pays.measure(model, maker, scenes, training.frozen_features(model, images), 0, elsewhere=False)
    asked = pays._downstream(scenes, 1, len(language.KINDS), elsewhere=False)
    said = generate.answer_questions(
        model, maker, images, [[one.question for one in some] for some in asked], refuse=True
    )
    for scene, some, answers, got in zip(scenes, asked, said, scores["vqa"], strict=True):
        first = [(text.split() or [""])[0] for text, _ in answers]
        right = [truth.judge(scene, one.question, word) == truth.RIGHT for one, word in zip(some, first, strict=True)]
        assert got == pytest.approx(np.mean(right), abs=1e-5)


def test_who_says_yes_to_all_is_right_where_yes_is_right(renderer, scenes):
    model, maker = small_model(SHAPE, 4), Maker(Words(SIDE), SHAPE)
    with torch.no_grad():
        model.bias[maker.words.number["yes"]] += 100
    features = training.frozen_features(model, corpora.pictures(renderer, scenes))
    scores = pays.measure(model, maker, scenes, features, 0, elsewhere=True)
    asked = pays._downstream(scenes, 1, len(language.KINDS), elsewhere=True)
    yes = [np.mean([one.answer == "yes" for one in some]) for some in asked]
    assert scores["vqa"] == pytest.approx(yes, abs=1e-5) and 0 < np.mean(yes) < 0.25
    assert all(language.understand(one.question) is None for some in asked for one in some)


def test_tuning_asks_elsewhere_and_answers_truly(scenes):
    maker = Maker(Words(SIDE), SHAPE)
    settings = {"tuning_steps": 2, "batch": 4, "tuning_questions": 3, "data_seed": 0}
    batch = pays._tuning_collate(maker, scenes, torch.zeros(len(scenes), 10, 64), settings, 0)([0, 1, 2, 3])
    assert set(batch) == {"answer", "features"} and batch["answer"]["target"].shape[:2] == (4, pays.ASKED)


def test_weights_come_back_and_damage_is_named(tmp_path, monkeypatch):
    model = small_model(SHAPE, 4)
    shard = {"seed": 0, "model": "generator"}
    made = weights.stored([{"curve": [], "weights": weights.as_text(model)}], [shard], tmp_path, "w")
    where = made[0, "generator"]["weights"]
    monkeypatch.setattr(weights, "blank", lambda root, shape: small_model(shape, 5))
    back = weights.opened(tmp_path, where, SHAPE)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(weights.FROZEN)}
    assert own and all(torch.equal(back.state_dict()[name], value) for name, value in own.items())
    with pytest.raises(UserError, match="another model"):
        weights.opened(tmp_path, where, Shape(width=32, layers=2))
    weights._opened.cache_clear()
    path = tmp_path / where["path"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="was changed"):
        weights.opened(tmp_path, where, SHAPE)
    weights.stored([{"weights": weights.as_text(model)}], [shard], tmp_path, "w")  # a torn file is written again
    assert isinstance(weights.opened(tmp_path, where, SHAPE), Jade)
