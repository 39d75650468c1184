"""Masking, batches, learning rates of parts, both stages to the bit, and three tasks on one checkpoint."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch

from mmlib.models import fit
from mmlib.models.optimizer import split_parameters
from mmlib.vlab import clip_base, language, tasks, training
from mmlib.vlab.batches import IGNORED, still_collate, training_collate
from mmlib.vlab.model import RATIOS, Arm, Vlab, adopt_reader, reader_state

BOTH = {**RATIOS, "mlm": 1.0, "match": 1.0}
SETTINGS = {
    "name": "test", "steps": 4, "batch": 6, "learning_rate": 1e-3, "muon_learning_rate": 2e-3,
    "pace": 4.0, "clip_pace": 0.2, "questions": 2, "ratios": BOTH, "contrastive_steps": 1,
}  # fmt: skip


def test_masks_follow_the_shares_and_spare_the_start(sequences):
    draw, text = random.Random(0), "the dog moves left , all on grass"
    plain, counts = list(sequences.ids(text)), {"masked": 0, "kept": 0, "other": 0, "all": 0}
    mask = sequences.tokenizer.mask_token_id
    for _ in range(3000):
        ids, labels = sequences.mask(text, "ulm", draw)
        assert labels[0] == IGNORED and ids[0] == plain[0] and any(label != IGNORED for label in labels)
        for i, label in enumerate(labels):
            assert label in (IGNORED, plain[i]) and (label != IGNORED or ids[i] == plain[i])
            if i:
                counts["all"] += 1
            if label != IGNORED:
                counts["masked" if ids[i] == mask else "kept" if ids[i] == plain[i] else "other"] += 1
    asked = counts["masked"] + counts["kept"] + counts["other"]
    assert asked / counts["all"] == pytest.approx(0.6, abs=0.01)
    assert counts["masked"] / asked == pytest.approx(0.8, abs=0.01)
    assert counts["other"] / asked == pytest.approx(0.1, abs=0.01)


def test_every_batch_holds_partners_and_asks_what_it_should(sequences, pairs):
    seen = []
    collate = training_collate(sequences, pairs, lambda items: seen.append(items) or {}, SETTINGS, 0)
    for start in (0, 6, 12):
        batch = collate(list(range(start, start + 6)))
        items = seen[-1]
        assert all(b == a + 1 and a % 2 == 0 for a, b in zip(items[::2], items[1::2], strict=True))
        assert batch["text"].shape == batch["labels"].shape == (6, 3, batch["text"].shape[-1])
        every_other = [number // 2 % 2 == 0 for number in range(start, start + 6)]
        assert batch["causal"][:, 1:].all() and batch["causal"][:, 0].tolist() == every_other, "ULM, then MLM, in turn"
        assert batch["weight"].sum().item() == pytest.approx(BOTH["mlm"] + BOTH["ulm"] + BOTH["qa"])
        said = sequences.tokenizer.batch_decode(batch["caption"], skip_special_tokens=True)
        for item, text in zip(items, said, strict=True):
            assert text in language.captions(pairs[item])
    clips = [item // 2 for items in seen for item in items[::2]]
    assert len(set(clips)) == len(clips), "an epoch uses every clip once"


def test_captions_are_filled_only_by_the_losses_asked_for(sequences, pairs):
    def batch(**ratios):
        return training_collate(sequences, pairs, lambda items: {}, {**SETTINGS, "ratios": ratios}, 0)(list(range(6)))

    alone = batch(vtc=0.3, pair=2.0, match=0.0, mlm=0.0, ulm=0.5, qa=1.0)
    assert alone["causal"].all() and alone["text"].shape[1] == 3, "a caption and two questions, all generated"
    questions = batch(vtc=0.0, pair=0.0, match=0.0, mlm=0.0, ulm=0.0, qa=1.0)
    assert questions["text"].shape[1] == 2 and questions["weight"].sum().item() == pytest.approx(1.0)


def test_every_family_is_asked_whatever_the_number_of_questions(pairs):
    """With as many questions as fit, in a fixed order, the last family was never trained."""
    clip = next(clip for clip in pairs.clips if clip.kind == "across")
    draw, asked = random.Random(0), set()
    for _ in range(40):
        asked |= {language.QUESTIONS[name].family for name, *_ in language.draw_questions(clip, draw, 2)}
    assert asked == set(language.FAMILIES)


def test_a_pace_is_a_learning_rate_of_its_own():
    """Oracle: AdamW with a parameter group."""
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    theirs, x = copy.deepcopy(ours), torch.randn(16, 4)
    groups = [{"params": theirs[0].parameters(), "lr": 5e-3}, {"params": theirs[1].parameters(), "lr": 1e-3}]
    reference = torch.optim.AdamW(groups, weight_decay=0.0, eps=1e-12)
    with training.paces({ours[0]: 5.0}):
        optimizer = torch.optim.AdamW(ours.parameters(), 1e-3, weight_decay=0.0, eps=1e-12)
        for model, stepper in ((ours, optimizer), (theirs, reference)):
            for _ in range(20):
                stepper.zero_grad()
                model(x).square().mean().backward()
                stepper.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.fixture(scope="module")
def lower(small_clip, images):
    return clip_base.lower_features(small_clip, images, 1)


def trained(small_clip, sequences, pairs, lower, scratch=None, **options):
    model = Vlab(small_clip, Arm("tconv", (1,), hidden=8), 0, 0)
    curve = training.train(model, sequences, pairs, {"lower": lower}, {**SETTINGS, **options}, 0, scratch)
    return model, curve


def test_stage_1_is_bitwise_and_moves_what_it_should(small_clip, sequences, pairs, lower):
    start = Vlab(small_clip, Arm("tconv", (1,), hidden=8), 0, 0).state_dict()
    first, second = (trained(small_clip, sequences, pairs, lower)[0].state_dict() for _ in range(2))
    assert list(first) == list(start)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        frozen = name.startswith("video.vision")
        assert torch.equal(value, start[name]) == frozen or name.endswith(("position_ids", "share")), name


def test_the_pace_is_that_of_what_can_learn_order(small_clip, sequences, pairs, lower, images):
    """Adapters, or frame embeddings where there are none: ten times the pace, ten times the way of the first step."""
    image = clip_base.image_tokens(small_clip, images)

    def way(arm, seen, name, pace):
        model = Vlab(small_clip, arm, 0, 0)
        start = model.state_dict()[name].clone()
        training.train(model, sequences, pairs, seen, {**SETTINGS, "pace": pace, "steps": 1, "contrastive_steps": 0}, 0)
        return (model.state_dict()[name] - start).abs().median().item()

    cases = (
        (Arm("tconv", (1,), hidden=8), {"lower": lower}, "video.adapters.attention1.conv.weight"),
        (Arm(), {"video": torch.cat([image, image.flip(1)])}, "tokens.video.frame"),
    )
    for arm, seen, name in cases:
        slow, fast = (way(arm, seen, name, pace) for pace in (1.0, 10.0))
        assert fast == pytest.approx(10 * slow, rel=0.2) and slow > 0, name


def test_a_killed_run_goes_on_to_the_same_bits(small_clip, sequences, pairs, lower, tmp_path, monkeypatch):
    whole, _ = trained(small_clip, sequences, pairs, lower)
    kept = fit.fit

    def with_saves(*arguments, **options):
        return kept(*arguments, **options, save_every=2)

    calls = {"n": 0}

    def killed(*arguments, **options):
        def collate(items):
            calls["n"] += 1
            if calls["n"] == 5:  # the first phase takes one
                raise KeyboardInterrupt
            return arguments[1](items)

        return with_saves(arguments[0], collate, **options)

    monkeypatch.setattr(training, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(small_clip, sequences, pairs, lower, tmp_path / "s")
    assert list((tmp_path / "s-1").glob("checkpoint-2"))
    monkeypatch.setattr(training, "fit", with_saves)
    resumed, _ = trained(small_clip, sequences, pairs, lower, tmp_path / "s")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_losses_can_be_left_out(small_clip, sequences, pairs, lower):
    """Without VTC CLIP's text tower has no gradient; with VTC alone the multimodal encoder has none."""
    model = Vlab(small_clip, Arm("tconv", (1,), hidden=8), 0, 0)
    for ratios, still in (
        ({**RATIOS, "vtc": 0.0, "pair": 0.0}, model.text),
        ({"vtc": 1.0, "pair": 1.0, "match": 0.0, "mlm": 0.0, "ulm": 0.0, "qa": 0.0}, model.fusion),
    ):
        see = training.seer({"lower": lower})
        batch = training_collate(sequences, pairs, see, {**SETTINGS, "ratios": ratios}, 0)(list(range(6)))
        model.zero_grad()
        model(**batch)["loss"].backward()
        assert not any(p.grad is not None and p.grad.any() for p in still.parameters())


def test_words_wait_until_the_contrastive_phase_is_over(small_clip, sequences, pairs, lower):
    """First phase: the multimodal encoder has a gradient from `match` alone. Without these losses both have words."""
    first, second = training.phases({**SETTINGS, "contrastive_steps": 3})
    assert (first["steps"], second["steps"]) == (3, SETTINGS["steps"]) and second["ratios"] == BOTH
    model = Vlab(small_clip, Arm("tconv", (1,), hidden=8), 0, 0)
    for match in (0.0, 1.0):
        part = {**first, "ratios": {**first["ratios"], "match": match}}
        batch = training_collate(sequences, pairs, training.seer({"lower": lower}), part, 0)(list(range(6)))
        model.zero_grad()
        model(**batch)["loss"].backward()
        assert any(p.grad is not None for p in model.fusion.parameters()) == bool(match)
    assert model.fusion.dense.weight.grad is None, "no word is predicted"
    assert all(p.grad.any() for p in model.video.adapters["attention1"].conv.parameters())
    words = {**SETTINGS, "contrastive_steps": 3, "ratios": {**RATIOS, "vtc": 0.0, "pair": 0.0}}
    assert [part["ratios"] for part in training.phases(words)] == [words["ratios"]] * 2
    assert training.phases({**SETTINGS, "contrastive_steps": 0}) == [{**SETTINGS, "contrastive_steps": 0}]
    _, curve = trained(small_clip, sequences, pairs, lower, contrastive_steps=3)
    assert curve[0]["step"] == 3 and curve[-1]["step"] == 3 + SETTINGS["steps"]


def test_muon_trains_matrices_of_layers_and_adapters_and_no_frame_embedding(small_clip):
    model = Vlab(small_clip, Arm("st3d", (1,), hidden=8), 0, 0)
    names = {id(value): name for name, value in model.named_parameters()}
    hidden, others = ([names[id(weight)] for weight in part] for part in split_parameters(model))
    assert {"video.adapters.attention1.down.weight", "fusion.layers.0.attend.query.weight"} <= set(hidden)
    assert {"tokens.video.frame", "video.adapters.attention1.conv.weight", "fusion.bias"} <= set(others)
    assert not [name for name in hidden + others if name.startswith("video.vision")], "CLIP is frozen"


def test_positions_are_as_large_as_what_is_seen(words):
    """With transformers' own 0.02 no layer of a trained CLIP tells where a patch was."""
    table = clip_base.build_clip(words, 64, 2, 18, 0).vision_model.embeddings.position_embedding.weight
    assert table.std().item() == pytest.approx(clip_base.POSITION_DEVIATION, rel=0.1) and table.std() > 0.3


def test_stage_2_trains_on_cached_tokens_and_gives_the_same_loss(small_clip, sequences, pairs, images, lower):
    """Tokens of frozen encoders, cached, and encoded anew: the same batch has the same loss."""
    model = Vlab(small_clip, Arm("tconv", (1,), hidden=8, branches="parallel"), 0, 0).eval()
    image = clip_base.image_tokens(small_clip, images)
    cached = {"video": training.encode(model, lower), "image": image}
    fresh = {"lower": lower, "image": image}
    losses = []
    for features in (cached, fresh):
        collate = training_collate(sequences, pairs, training.seer(features), SETTINGS, 0)
        with torch.no_grad():
            losses.append(model(**collate(list(range(6))))["loss"])
    torch.testing.assert_close(*losses)
    settings = {**SETTINGS, "name": "stage 2"}
    before = copy.deepcopy(model.video.state_dict())
    training.train(model, sequences, pairs, cached, settings, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.video.state_dict().items())


def test_reversed_frames_are_the_partner(small_clip, sequences, pairs, lower):
    model, _ = trained(small_clip, sequences, pairs, lower)
    model.eval()
    forward, backward = training.encode(model, lower), training.encode(model, lower, "reversed")
    torch.testing.assert_close(forward[[1, 0, 3, 2]], backward[:4], atol=1e-5, rtol=1e-5)
    asked = tasks.questions(pairs, "motion")
    said = [row[3] for row in asked]
    assert sum(tasks.right(said, asked)) == len(asked) and sum(tasks.right_for_partner(said, asked)) == 0
    same = ["right"] * len(asked)
    assert tasks.right(same, asked) == tasks.right_for_partner(same, asked)


def test_generation_stops_at_the_end_sign(sequences, small_clip, monkeypatch):
    told = iter(sequences.tokenizer.convert_tokens_to_ids(["dog", "left", language.EOS, "cat"]))
    model = Vlab(small_clip, Arm(), 0, 0).eval()
    monkeypatch.setattr(
        model.fusion, "logits", lambda h: torch.nn.functional.one_hot(torch.tensor([[next(told)]] * 2), 99).float()
    )
    seen = {"video": torch.randn(2, 8, 17, 32)}
    assert tasks.generate(model, sequences, seen, ["what is it ?"] * 2, 9) == ["dog left"] * 2


def test_an_order_blind_model_is_at_half_in_the_reversal_gallery(small_clip, sequences, pairs, images):
    model = Vlab(small_clip, Arm(), 0, 0).eval()
    see = training.seer({"image": clip_base.image_tokens(small_clip, images)})
    recalls = tasks.recalls(model, sequences, lambda items: {"video": see(items)["image"]}, pairs)
    assert np.mean(recalls["reversal_r1"]) <= 0.5 and max(recalls["reversal_r1"]) <= 0.5
    assert [2 * r for r in recalls["reversal_r1"]] == pytest.approx(recalls["static_r1"])


def test_caption_scores_know_the_motion(pairs):
    items = [0, 1]
    own = [language.captions(pairs[item])[0] for item in items]
    scores = tasks.caption_scores(own, pairs, items)
    swapped = tasks.caption_scores(own[::-1], pairs, items)
    assert scores["caption_motion"] == [1.0, 1.0] and swapped["caption_motion"] == [0.0, 0.0]
    assert min(scores["cider"]) > max(swapped["cider"])


def test_a_reader_learns_on_stills_alone_and_is_adopted(small_clip, sequences, pairs, images):
    model, tokens = Vlab(small_clip, Arm(), 0, 0), clip_base.image_tokens(small_clip, images)
    start = copy.deepcopy(model.state_dict())
    training.learn_to_read(model, sequences, pairs, tokens, {**SETTINGS, "name": "reader"}, 0)
    state = reader_state(model)
    for name, value in model.state_dict().items():
        assert name in state or torch.equal(value, start[name]), name
    assert sum(not torch.equal(value, start[name]) for name, value in state.items()) > 20
    batch = still_collate(sequences, pairs, tokens, SETTINGS, 0)(list(range(6)))
    assert batch["video"].shape == (6, 1, *tokens.shape[2:])
    words = " ".join(sequences.tokenizer.batch_decode(batch["caption"]))
    assert not set(words.split()) & set(language.new_words(8)), "a still says nothing of motion"
    for arm in (Arm("tconv", (1,), hidden=8), Arm(pool=True, frame_embedding=False)):
        other = Vlab(small_clip, arm, 0, 1)
        adopt_reader(other, state)
        own = other.state_dict()
        assert all(torch.equal(value, own[name]) for name, value in state.items() if name in own)
        assert set(state) - set(own) == (set() if arm.frame_embedding else {"tokens.video.frame"})


def test_new_words_get_the_length_of_known_ones(small_clip, sequences):
    model = copy.deepcopy(small_clip)
    table = model.text_model.embeddings.token_embedding.weight
    new = sequences.tokenizer.convert_tokens_to_ids(language.new_words(8))
    known = sequences.tokenizer.convert_tokens_to_ids(language.still_words(8))
    assert not set(new) & set(known)
    with torch.no_grad():
        table[known] *= 5
    before = table.detach().clone()
    clip_base.meet_new_words(model, sequences.tokenizer, 8, 0)
    assert table[new].std().item() == pytest.approx(before[known].std().item(), rel=0.15)
    untouched = [i for i in range(len(table)) if i not in new]
    assert torch.equal(table[untouched], before[untouched])
