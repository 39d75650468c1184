"""VQA accuracy, captions, retrieval, boxes and existence against published definitions, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.metrics import captions, grounding, retrieval, vqa


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("The Cat.", "cat"),
        ("two", "2"),
        ("None", "0"),
        ("dont know", "don't know"),
        ("couldntve", "couldn't've"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("red/blue", "red blue"),
        ("red, blue", "red blue"),
        ("wall ?", "wall"),
        ("t-shirt", "t shirt"),
        ("  an\napple ", "apple"),
    ],
)
def test_normalisation_is_the_official_one(raw, normal):
    assert vqa.normalise(raw) == normal


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_is_the_mean_over_leave_one_out_sets(matches, score):
    # By hand for 2 matches: eight sets still hold both (2/3), two hold one (1/3): (8 * 2 + 2 * 1) / 30 = 0.6.
    given = ["net"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa.accuracy("net", given) == pytest.approx(score)


def test_answers_are_normalised_only_where_annotators_differ():
    assert vqa.accuracy("The net", ["net"] * 9 + ["a fence"]) == 1.0
    assert vqa.accuracy("The net", ["net"] * 10) == 0.0, "the official code compares as is when all agree"
    assert vqa.accuracy("net", ["net"]) == 1.0 and vqa.exact("Two.", "2") == 1.0
    with pytest.raises(ValueError, match="at least one"):
        vqa.accuracy("net", [])


def test_bleu_and_rouge_by_hand():
    scored = captions.score(["the cat sat"], [["the cat sat down"]])
    # Unigrams 3 of 3, bigrams 2 of 2, brevity penalty exp(1 - 4/3).
    assert scored["bleu1"][0] == pytest.approx(math.exp(-1 / 3), rel=1e-6)
    assert scored["bleu2"][0] == pytest.approx(math.exp(-1 / 3), rel=1e-6)
    # Longest common subsequence 3: precision 1, recall 3/4, beta 1.2.
    assert scored["rouge_l"][0] == pytest.approx((1 + 1.44) * 0.75 / (0.75 + 1.44), rel=1e-6)


def test_cider_by_hand():
    # Two documents without common words: every n-gram has idf log 2. Equal texts of four words: 10.
    same = captions.score(["a b c d", "e f g h"], [["a b c d"], ["e f g h"]])
    assert same["cider"] == pytest.approx([10.0, 10.0])
    # Half of the words: cosine of unigrams 1/2, bigrams 1/3 (a b of a b, b x, x y), none of higher order.
    half = captions.score(["a b x y", "e f g h"], [["a b c d"], ["e f g h"]])
    unseen = math.log(2)  # df of an unseen n-gram is taken as 1: log 2 - log 1
    assert unseen == pytest.approx(0.693, abs=1e-3)
    assert half["cider"][0] == pytest.approx(10 / 4 * (1 / 2 + 1 / 3), rel=1e-6)


def test_caption_scores_pool_and_refuse():
    pooled = captions.corpus(["The cat sat!", "a dog"], [["the cat sat"], ["a dog"]])
    assert pooled["bleu1"] == pytest.approx(1.0) and set(pooled) == set(captions.NAMES)
    with pytest.raises(UserError, match="1 captions and 2 lists"):
        captions.score(["a"], [["a"], ["b"]])
    with pytest.raises(UserError, match="caption 1 has no reference"):
        captions.score(["a", "b"], [["a"], []])


def test_recall_by_hand():
    similarity = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.1], [0.3, 0.3, 0.3]])
    assert retrieval.recall_at(similarity, 1) == pytest.approx([1.0, 0.0, 1 / 3])
    assert retrieval.recall_at(similarity, 2) == pytest.approx([1.0, 1.0, 2 / 3])
    assert retrieval.recall_at(similarity, 3) == pytest.approx([1.0, 1.0, 1.0])


def test_a_constant_similarity_is_at_chance():
    assert retrieval.recall_at(np.ones((50, 50)), 5).mean() == pytest.approx(0.1)


def test_ties_are_what_random_breaking_gives_on_average():
    draw = np.random.default_rng(0)
    similarity = draw.integers(0, 4, (40, 40)).astype(float)
    broken = [retrieval.recall_at(similarity + draw.uniform(0, 0.1, similarity.shape), 5).mean() for _ in range(400)]
    assert retrieval.recall_at(similarity, 5).mean() == pytest.approx(np.mean(broken), abs=0.01)


def test_several_relevant_items_count_as_one_hit():
    similarity = np.array([[0.1, 0.9, 0.8]])
    relevant = np.array([[True, False, True]])
    assert retrieval.recall_at(similarity, 1, relevant) == [0.0] and retrieval.recall_at(similarity, 2, relevant) == [
        1.0
    ]
    with pytest.raises(UserError, match="query 0 has no relevant"):
        retrieval.recall_at(similarity, 1, ~np.ones((1, 3), bool))
    with pytest.raises(UserError, match="not a finite matrix"):
        retrieval.recall_at(np.array([[np.nan]]), 1)
    with pytest.raises(UserError, match="need `relevant`"):
        retrieval.recall_at(similarity, 1)


def test_boxes_by_hand():
    assert grounding.iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert grounding.iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0 and grounding.iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1.0
    assert grounding.parse_box("at [0.1, 0.2,0.3 ,0.4] .") == (0.1, 0.2, 0.3, 0.4)
    assert grounding.parse_box("[0.3,0.2,0.1,0.4]") is None and grounding.parse_box("[1,2,3]") is None
    assert grounding.box_accuracy("[0,0,2,2]", "[0,0,2,2.5]") == 1.0
    assert grounding.box_accuracy("[0,0,2,1]", "[0,0,2,2]") == 0.0, "exactly one half is not more than one half"
    assert grounding.box_accuracy("there", "[0,0,2,2]") == 0.0
    with pytest.raises(ValueError, match="holds no box"):
        grounding.box_accuracy("[0,0,1,1]", "there")


def test_existence_by_hand():
    truths = ["yes", "yes", "no", "no"]
    scored = grounding.existence(["Yes, it is.", "No.", "yes", "There is not. Yes."], truths)
    assert scored == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "yes": 0.5}
    assert grounding.existence(["no"] * 4, truths)["f1"] == 0.0
    always = grounding.existence(["yes"] * 4, truths)
    assert (always["accuracy"], always["recall"], always["f1"]) == (0.5, 1.0, pytest.approx(2 / 3))
