"""One evaluation front: lm-evaluation-harness, which knows nothing of ours, gives every item the score that we give."""

from __future__ import annotations

import pytest
import torch

from mmlib.errors import UserError
from mmlib.metrics import continuations
from mmlib.quantization import abilities, arithmetic, family, harness


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


def test_ranking_is_the_harness_acc(root, tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    tasks = [abilities.build(name, root, items=12, shots=2, choices=4) for name in ("capital", "past")]
    found = harness.evaluate(model, tokenizer, [harness.ranking_task(task, 2) for task in tasks])
    for task in tasks:
        ours = continuations.score(model, tokenizer, task.prefix(2), task.questions())["ranking"]
        assert found[task.name]["acc"] == ours
    every = [value for scores in found.values() for value in scores["acc"]]
    assert 0 < sum(every) < len(every), "all alike: equality would mean nothing"


def test_generation_is_the_harness_exact_match():
    settings = {"group": 32, "largest": 3, "most_steps": 2, "items": 24, "batch": 16}
    subject = family.train(settings, 32, 0, learning_rate=0.01, steps=120)
    ours = family.scores(subject)
    task = harness.generation_task("words", subject.demonstration, subject.tests, arithmetic.END, 30)
    found = harness.evaluate(subject.model, subject.tokenizer, [task], batch=8)["words"]
    assert found["strict"] == ours["cot_strict"] and found["flexible"] == ours["cot_flexible"]
    assert 0 < sum(found["flexible"]) < len(found["flexible"]), "all alike: equality would mean nothing"


def test_the_version_of_a_harness_task_is_the_hash_of_its_items(root):
    task = abilities.build("capital", root, items=6, shots=1, choices=4)
    other = abilities.build("capital", root, items=6, shots=1, choices=4, seed=1)
    versions = [harness.ranking_task(each, 1).config.metadata["version"] for each in (task, other)]
    assert versions == [task.hash, other.hash] and task.hash != other.hash


def test_the_command_shows_both_evaluators_on_the_same_items(root, tiny_llama, monkeypatch, capsys):
    task = abilities.build("capital", root, items=6, shots=1, choices=4)
    ours, theirs = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    monkeypatch.setattr("mmlib.models.lm.open_checkpoint", lambda folder: (tiny_llama, None))
    monkeypatch.setattr(continuations, "score", lambda *_: {"ranking": ours})
    monkeypatch.setattr(harness, "evaluate", lambda *_: {"capital": {"acc": theirs}})
    harness.main(["capital", "--items", "6", "--shots", "1"])
    assert capsys.readouterr().out == (
        f"capital (items {task.hash}): ours 0.500, harness 0.333, alike on 5 of 6 items\n"
    )
    with pytest.raises(UserError, match="unknown task `capitol`"):
        harness.main(["capitol"])
