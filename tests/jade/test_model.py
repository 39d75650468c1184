"""The two-part mask, the three losses, box embeddings, and the cached decoder against the plain one."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from mmlib.jade import batches, decoding, generate, language, plain, training
from mmlib.jade.batches import Maker
from mmlib.jade.model import IGNORED, Jade, Shape, regions, two_part_mask
from mmlib.jade.tokens import Words
from mmlib.models.clip import pixels
from tests.jade.conftest import SIDE, small_model

BOX = (1, 1, 23, 23)


def states(model, target, prompt, seen):
    with torch.inference_mode():
        return model.states(seen, torch.tensor([[target]]), torch.tensor([[prompt]]))[0, 0]


@pytest.fixture(scope="module")
def seen(generator, images):
    with torch.inference_mode():
        return generator.see(generator.look.patches(pixels(images[:1])), regions([BOX], SIDE))


def test_a_target_sees_its_past_and_the_whole_prompt(generator, seen):
    base = states(generator, [1, 90, 91, 92], [1, 100, 101, 2], seen)
    later = states(generator, [1, 90, 91, 93], [1, 100, 101, 2], seen)
    torch.testing.assert_close(base[:3], later[:3])
    assert (base[3] - later[3]).abs().max() > 0.01
    prompt = states(generator, [1, 90, 91, 92], [1, 100, 102, 2], seen)
    assert ((base - prompt).abs().amax(-1) > 1e-3).all()


def test_a_prompt_sees_no_target_and_no_padding(generator, seen):
    """Were the prompt to see the target, an early place would change with a late token through it."""
    base = states(generator, [1, 90, 91, 92], [1, 100, 101, 2], seen)
    padded = states(generator, [1, 90, 91, 92], [1, 100, 101, 2, 0, 0], seen)
    torch.testing.assert_close(base, padded)


def test_a_box_is_seen_through_the_mask_and_only_if_it_is_on(generator, filter_model, images):
    patches = generator.look.patches(pixels(images[:1]))
    here, there = (generator.look(patches, regions([box], SIDE)) for box in (BOX, (49, 49, 71, 71)))
    assert (here - there).abs().max() > 0.01
    assert filter_model.look.region_patch is None


def test_regions_are_the_boxes_pixels():
    made = regions([(2, 5, 4, 9), (0, 0, 72, 72)], SIDE)
    assert made[0, 5:9, 2:4].all() and made[0].sum() == 8 and made[1].all()


def test_what_is_masked_and_what_is_asked(maker):
    draw, words = random.Random(0), maker.words
    said = language.Said("thing", "yes", "is there a dog ?", "yes")
    asked = [maker.question(said, BOX, "large dog", draw) for _ in range(400)]
    pieces = len(asked[0].labels) - 1  # the start is never asked
    share = sum(label != IGNORED for one in asked for label in one.labels) / (400 * pieces)
    assert share == pytest.approx(0.6, abs=0.04)
    assert all(one.labels[0] == IGNORED for one in asked)
    closing = [one.labels[-1] for one in asked]
    assert words.answer in closing and IGNORED in closing
    answered = [maker.answer(said, BOX, "large dog", draw) for _ in range(400)]
    assert all(
        [label for label in one.labels if label != IGNORED] == [*words.ids("yes"), words.sep] for one in answered
    )
    assert all(words.number["yes"] not in one.prompt and words.hidden in one.prompt for one in answered)
    assert all(words.number["yes"] in one.prompt for one in asked)
    given = [token for one in answered for token in one.target[-2:]]
    assert given.count(words.mask) / len(given) == pytest.approx(0.8, abs=0.05)


def test_switches_take_places_and_caption_out_of_the_prompt():
    blind = Maker(Words(SIDE), Shape(places=False), caption_in_prompt=False)
    prompt = blind.words.text(blind.pair_prompt("what", BOX, "large dog"))
    assert prompt == "[CLS] generate question answer pair [unused0] what [unused0] [unused0] [SEP]"
    full = Maker(Words(SIDE), Shape())
    assert full.words.text(full.pair_prompt("what", BOX, "large dog")).endswith(
        "[unused0] [loc1] [loc1] [loc23] [loc23] [unused0] large dog [SEP]"
    )


def test_targets_that_share_a_prompt_are_what_they_are_alone(generator, maker, images):
    """Side by side in one row, of different lengths: neither sees the other."""
    draw = random.Random(2)
    said = [language.Said("place", "where", "where is the dog ?", "north"),
            language.Said("match", "yes", "is the dog on red ?", "yes")]  # fmt: skip
    item = [maker.answer(one, BOX, "small dog", draw) for one in said]
    seen = generator.see(generator.look.patches(pixels(images[:1])), regions([BOX], SIDE))
    both = batches.stack([item], maker.words.pad)["answer"]
    assert both["prompt"].shape[1] == 1 and both["target"].shape[1] == 2
    with torch.inference_mode():
        together = generator.states(seen, both["target"], both["prompt"])[0]
        for number, one in enumerate(item):
            alone = generator.states(seen, torch.tensor([[one.target]]), torch.tensor([[one.prompt]]))[0, 0]
            torch.testing.assert_close(together[number, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    other = [*item[:1], maker.answer(said[1], (49, 49, 71, 71), "small dog", draw)]
    assert batches.stack([other], maker.words.pad)["answer"]["prompt"].shape[1] == 2  # two boxes share nothing


def test_the_mask_is_that_of_the_groups_code_for_one_target_a_prompt():
    from mmlib.models.cross_attention import sequence_mask

    text, prompt = torch.rand(3, 5) > 0.3, torch.rand(3, 4) > 0.3
    expected = sequence_mask(text, prompt, torch.ones(3, dtype=torch.bool))
    assert torch.equal(two_part_mask(text, prompt, 1), expected)


def test_a_box_is_drawn_as_a_convolution_would(generator, images):
    area = regions([BOX], SIDE)
    colours = generator.look.region_embed[area.long()].permute(0, 3, 1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(generator.look._drawn(colours), generator.look.region_patch(colours))


def test_a_new_model_sees_no_box_and_finds_like_by_like():
    from mmlib.jade.tokens import build_tokenizer
    from mmlib.models.clip import build_clip

    words = Words(SIDE)
    model = Jade(build_clip(build_tokenizer(SIDE), 32, 3, 21, 0), len(words), words.pad, Shape(width=32, layers=2), 0)
    patches = torch.randn(1, 32, 3, 3)
    with torch.inference_mode():
        torch.testing.assert_close(model.look(patches, regions([BOX], SIDE)), model.look(patches))
    for layer in model.layers:
        assert torch.equal(layer.attend.query.weight, layer.attend.key.weight)
    loc = model.word_embed.weight[words.place((1, 2, 40, 41))].detach()
    near = torch.cosine_similarity(loc[0], loc[1], 0) - torch.cosine_similarity(loc[0], loc[2], 0)
    assert near > 0.1  # neighbours start alike


def test_boxes_of_training_are_as_loose_as_a_detectors():
    draw = random.Random(0)
    made = {batches.loosened((1, 25, 23, 47), draw) for _ in range(400)}
    assert {box[0] for box in made} == {0, 1, 2, 3} and {box[3] for box in made} == {45, 46, 47, 48, 49}


def test_every_type_comes_before_one_comes_again():
    made = batches.types_in_turn(8, random.Random(3))
    assert set(made[:6]) == set(language.TYPES) and len(made) == 8


def test_the_loss_is_the_mean_over_tasks_not_over_tokens(generator, maker, images):
    draw = random.Random(1)
    said = language.Said("place", "where", "where is the dog ?", "north")
    item = [maker.caption(BOX, "large dog", draw), maker.question(said, BOX, "dog", draw),
            maker.answer(said, BOX, "dog", draw)]  # fmt: skip
    extra = {"pixels": pixels(images[:1]), "region": regions([BOX], SIDE)}
    with torch.inference_mode():
        whole = generator(**batches.stack([item], maker.words.pad), **extra)["loss"]
        parts = [generator(**batches.stack([[one]], maker.words.pad), **extra)["loss"] for one in item]
    torch.testing.assert_close(whole, torch.stack(parts).mean(), atol=1e-5, rtol=1e-5)


def test_training_lowers_the_loss_of_generator_and_filter(maker, images, web):
    from mmlib.jade.tokens import build_tokenizer
    from mmlib.models.clip import build_clip

    clip = build_clip(build_tokenizer(SIDE), 32, 3, 21, 0)
    settings = {"steps": 40, "batch": 8, "questions": 2, "answers": 6, "first": 8, "absent": 0.2, "simple_steps": 4,
                "answer_steps": 12, "align_steps": 10, "learning_rate": 0.003, "muon_learning_rate": 0.005}  # fmt: skip
    model, curve = training.train_generator(clip, maker, web, images, settings, 0)
    assert curve[-1]["loss"] < 5 and not model.training
    vision = {name: weight for name, weight in model.look.vision.named_parameters()}
    assert all(torch.equal(weight, vision[name]) for name, weight in clip.vision_model.named_parameters())
    blind = Maker(maker.words, Shape(width=32, layers=2, region=False, places=False))
    _, curve = training.train_filter(clip, blind, web, images, settings, 0)
    assert curve[-1]["loss"] < 5 and curve[-1]["step"] > 4  # counted through both parts
    further, _ = training.train_filter(
        clip, blind, web, images, {**settings, "steps": 0, "simple_steps": 0}, 0, start=model
    )
    assert torch.equal(further.word_embed.weight, model.word_embed.weight)


def test_targets_of_the_alignment_are_what_is_in_the_cells(web):
    from mmlib.jade.align import GROUPS, targets

    made, names = targets(web), list(GROUPS)
    for scene, cells in zip(web, made, strict=True):
        for cell in range(9):
            said = {name: GROUPS[name][n] for name, n in zip(names, cells[cell].tolist(), strict=True) if n >= 0}
            thing = next((o for o in scene.objects if o.cell == cell), None)
            parts = {"noun": thing.noun, "colour": thing.colour, "size": thing.size} if thing else {}
            assert said == {"where": language.CELLS[cell], "ground": scene.background, **parts}


def test_aligned_tokens_point_at_words(images, web):
    """Eight pictures by heart: most words are found, by chance few were; no other weight has moved."""
    from mmlib.jade.align import align
    from mmlib.jade.tokens import build_tokenizer
    from mmlib.models.clip import build_clip

    words, shape = Words(SIDE), Shape(width=32, layers=2, region=False, places=False)
    model = Jade(build_clip(build_tokenizer(SIDE), 32, 3, 21, 0), len(words), words.pad, shape, 0)
    features = training.frozen_features(model, images)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert align(model, words, web, features, 0, 0)["colour"] < 0.5
    assert align(model, words, web, features, 120, 0)["colour"] > 0.8
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all(name.startswith("tokens.project") for name in moved)


def test_existence_comes_first(maker, web):
    settings = {"steps": 4, "batch": 3, "questions": 4, "absent": 0.0, "simple_steps": 2}
    collate = batches.filter_collate(maker, web, torch.zeros(len(web), 10, 64), settings, 0)
    for step in range(4):
        made = collate(list(range(3 * step, 3 * step + 3)))["answer"]
        texts = [maker.words.text(ids) for ids in made["prompt"].flatten(0, 1).tolist()]
        assert all("is there a" in text for text in texts) == (step < 2)


def test_who_may_not_refuse_never_does(filter_model, images):
    blind = Maker(Words(SIDE), filter_model.shape)
    asked = [["where is the dog ?", "is there a cat ?"]] * 6
    keen = copy.deepcopy(filter_model)
    with torch.no_grad():
        keen.bias[blind.words.ids(language.ABSENT)] += 30
    said = {
        refuse: generate.answer_questions(keen, blind, images[:6], asked, refuse=refuse) for refuse in (True, False)
    }
    assert all(language.ABSENT in text for rows in said[True] for text, _ in rows)
    assert all(language.ABSENT not in text for rows in said[False] for text, _ in rows)


def test_mismatched_questions_have_no_sense_in_the_picture(web):
    from mmlib.jade.truth import PRESUPPOSITION, judge

    draw = random.Random(0)
    made = [question for scene in web if (question := batches.mismatched(scene, web, draw))]
    assert len(made) > 6
    draw = random.Random(0)
    for scene in web:
        if question := batches.mismatched(scene, web, draw):
            assert judge(scene, question, "dog") == PRESUPPOSITION


@pytest.mark.parametrize("region", [True, False])
def test_the_cached_decoder_says_what_the_plain_one_says(region, images):
    """Questions about several boxes at once, greedy: caption prompts of one length, pair prompts of several."""
    shape = Shape(width=32, layers=2, region=region)
    model, maker = small_model(shape, 3), Maker(Words(SIDE), shape)
    words, boxes = maker.words, [(1, 1, 23, 23), (25, 1, 47, 23), (49, 49, 71, 71)]
    area = regions(boxes, SIDE) if region else None
    with torch.inference_mode():
        seen = decoding.picture_keys(model, model.see(model.look.patches(pixels(images[:3])), area))
    captions = ["large dog on red", "dog", "small cat"]
    asked = ("what", "yes")
    slots = [maker.pair_prompt(kind, box, text) for box, text in zip(boxes, captions, strict=True) for kind in asked]
    fast = decoding.decode(model, words, seen, batches.padded(slots, words.pad), end=words.answer)
    rows = [0, 0, 1, 1, 2, 2]
    for number, row in enumerate(rows):
        slow = plain.greedy(model, words, pixels(images[row : row + 1]), area[row : row + 1] if region else None,
                            torch.tensor([slots[number]]), end=words.answer)[0]  # fmt: skip
        got = fast.ids[number]
        cut = got.index(words.sep) if words.sep in got else len(got)
        assert got[:cut] == slow
    # Answers behind questions of different lengths: prefixes are padded, and must not see the padding.
    questions = [words.ids("is there a dog ?"), words.ids("dog ?")] * 3
    prompts = [maker.pair_prompt(None, box, text) for box, text in zip(boxes, captions, strict=True) for _ in asked]
    prefix = [[words.cls, *ids, words.answer] for ids in questions]
    fast = decoding.decode(model, words, seen, batches.padded(prompts, words.pad),
                           prefix=batches.padded(prefix, words.pad), end=words.sep)  # fmt: skip
    for number, row in enumerate(rows):
        slow = plain.greedy(model, words, pixels(images[row : row + 1]), area[row : row + 1] if region else None,
                            torch.tensor([prompts[number]]), end=words.sep, prefix=[prefix[number]])[0]  # fmt: skip
        assert fast.ids[number] == slow


def test_drawn_tokens_follow_the_renormalised_top_and_ends_are_never_drawn():
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]])).repeat(4000, 1)
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    drawn = decoding.choose(logits, 2, uniform, [1], allow_end=False)
    share = torch.bincount(drawn, minlength=4) / 4000
    torch.testing.assert_close(share, torch.tensor([5 / 7, 0.0, 2 / 7, 0.0]), atol=0.03, rtol=0)
    assert (decoding.choose(logits, 2, uniform, [0], allow_end=False) == 0).all(), "the best token ends the question"
    assert (decoding.choose(logits, 2, None, [], True) == 0).all()


def test_prob_is_the_mean_over_the_answers_tokens(generator, maker, images):
    words = maker.words
    with torch.inference_mode():
        seen = decoding.picture_keys(generator, generator.see(generator.look.patches(pixels(images[:1])),
                                                              regions([BOX], SIDE)))  # fmt: skip
    rows = generate.ask_boxes(generator, maker, seen, [BOX], ["dog"], ("what", "how"), 0, ["p/0"])
    assert all(0 <= row["prob"] <= 1 for row in rows) and [row["type"] for row in rows] == ["what", "how"]
    for row in rows:
        said, total = [words.cls, *words.ids(row["question"]), words.answer], []
        for token in words.ids(row["answer"]):
            target = torch.tensor([[[*said, words.mask]]])
            with torch.inference_mode():
                h = generator.states(generator.see(generator.look.patches(pixels(images[:1])), regions([BOX], SIDE)),
                                     target, torch.tensor([[maker.pair_prompt(None, BOX, "dog")]]))  # fmt: skip
                total.append(generator.logits(h[0, 0, -1]).softmax(-1)[token].item())
            said.append(token)
        assert row["prob"] == pytest.approx(sum(total) / len(total) if total else 0.0, abs=1e-4)
