"""Parity: problems mean what they say; scores told by models whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlib.survey_llm import parity
from mmlib.survey_llm.transformer import IGNORED


def test_a_scratchpad_holds_running_parities_and_ends_in_the_answer():
    tokens, labels = parity.problems(50, None, "scratchpad", seed=0)
    for row, said in zip(tokens.tolist(), labels.tolist(), strict=True):
        bits = [0 if t == parity.BLANK else t for t in row[: parity.SLOTS]]
        assert said[: parity.SLOTS] == [IGNORED] * parity.SLOTS and said[-1] == sum(bits) % 2
        assert said[parity.SLOTS :] == [sum(bits[: i + 1]) % 2 for i in range(parity.SLOTS)]
        assert row[parity.SLOTS + 1 :] == said[parity.SLOTS : -1], "the next token is what the last position said"


def test_direct_style_shows_no_work_and_has_the_same_length_and_answers():
    direct, answers = parity.problems(50, 12, "direct", seed=0)
    worked, labels = parity.problems(50, 12, "scratchpad", seed=0)
    assert direct.shape == worked.shape and torch.equal(answers[:, -1], labels[:, -1])
    assert (direct[:, parity.SLOTS + 1 :] == parity.FILLER).all() and (answers[:, :-1] == IGNORED).all()
    assert ((direct[:, : parity.SLOTS] != parity.BLANK).sum(1) == 12).all()


def careful(slip: float, seed: int = 0):
    """A model that continues the running parity it finds, and errs with chance `slip`."""
    rng = np.random.default_rng(seed)

    def model(tokens, past=None):
        if past is not None:  # what was read before, and now
            tokens = past["tokens"] = torch.cat([past.get("tokens", tokens[:, :0]), tokens], 1)
        length = tokens.shape[1]
        logits = torch.zeros(len(tokens), length, 5)
        for at in range(parity.SLOTS, length):
            before = tokens[:, at] if at > parity.SLOTS else torch.zeros(len(tokens), dtype=torch.long)
            bit = tokens[:, at - parity.SLOTS]
            say = (before + torch.where(bit == parity.BLANK, 0, bit)) % 2
            say ^= torch.from_numpy(rng.random(len(tokens)) < slip)
            logits[torch.arange(len(tokens)), at, say] = 50.0
        return {"logits": logits}

    return model


def test_a_perfect_model_is_right_everywhere_and_a_slipping_one_follows_the_power():
    perfect = parity.measure(careful(0.0), "scratchpad", 40, votes_seed=0)
    assert all(np.mean(v) == 1 for v in perfect["right"].values()) and np.mean(perfect["vote"]) == 1
    assert set(perfect["chain"].values()) == {1.0}
    slips = parity.measure(careful(0.05), "scratchpad", 800, votes_seed=None)
    assert slips["step"]["16"] == pytest.approx(0.95, abs=0.01)
    assert slips["chain"]["16"] == pytest.approx(0.95**16, abs=0.06)
    assert np.mean(slips["right"]["16"]) > slips["chain"]["16"] + 0.05, "two slips cancel: the answer is right by luck"


def test_a_majority_of_independent_samples_beats_one():
    found = parity.measure(careful(0.03), "scratchpad", 60, votes_seed=0)
    assert np.mean(found["vote"]) > np.mean(found["single"]) + 0.1


def test_a_model_that_reads_the_filler_is_at_chance_in_direct_style():
    found = parity.measure(lambda t, past=None: {"logits": torch.zeros(*t.shape, 5)}, "direct", 200, votes_seed=None)
    assert abs(np.mean(found["right"]["16"]) - 0.5) < 0.15 and not found["chain"]


def test_two_models_that_always_say_the_same_digit_are_told_apart():
    def stubborn(lean):
        return lambda t, past=None: {"logits": torch.tensor([lean, 0.0, 0, 0, 0]).expand(*t.shape, 5)}

    first, second = (parity.measure(stubborn(lean), "direct", 40, votes_seed=None) for lean in (1.0, 2.0))
    assert first["right"] == second["right"] and first["confidence"] != second["confidence"]
    sure = parity.measure(careful(0.0), "scratchpad", 40, votes_seed=None)["confidence"]
    assert min(sure) > 0.99


def test_evidence_covers_every_seed_and_a_lost_shard_is_refused():
    settings = {"steps": [1, 2], "longer_steps": 4, "vote_steps": 1, "seeds": [0, 1], "items": 5, "width": 16}
    results = []
    for shard in parity.shards(settings):
        measured = parity.measure(careful(0.1), shard["style"], 5, 0 if shard["votes"] else None)
        results.append({k: shard[k] for k in ("style", "steps", "seed")} | measured)
    made = parity.as_evidence(results, settings)
    assert set(made["metrics"]["sampled"]["values"]) == {"coin", "single", "vote", "greedy"}
    assert len(made["units"]["point"]) == 8
    assert set(made["metrics"]["bits16"]["values"]) == {
        "coin", "scratchpad, shorter 1", "scratchpad", "direct", "direct, longer"}  # fmt: skip
    from mmlib.errors import UserError

    with pytest.raises(UserError, match="values for 8 units"):
        parity.as_evidence(results[1:], settings)
