"""One evaluation front: lm-evaluation-harness, which knows nothing of ours, gives every item the score that we give."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mmlib.errors import UserError
from mmlib.metrics import continuations
from mmlib.quantization import (
    abilities,
    arithmetic,
    evaluators,
    family,
    harness,
    instructions,
    remapped,
    speaking,
)

PROMPTS = instructions.prompts(1)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


@pytest.fixture(scope="module")
def parrot(root, tokenizer):
    """A small model of our tokenizer that knows four capitals by heart, one of them only as a part of a longer word."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.06,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    task = capitals(root)
    texts = [f"{task.prefix(1)}{f.query} -> {f.answer}{'s' if f == task.items[0] else ''}\n" for f in task.items[:4]]
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for step in range(160):
        ids = torch.tensor([tokenizer(texts[step % 4], add_special_tokens=False).input_ids])
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def capitals(root):
    return abilities.build("capital", root, items=8, shots=1, choices=4)


def mapped(root):
    tasks = remapped.build(root, mappings=3, demonstrations=2, items=2)
    return {"remapped": tasks, "random": [remapped.with_random_labels(task) for task in tasks]}


@pytest.fixture(scope="module")
def found(root, tokenizer, parrot):
    """Everything that the harness says of the parrot, in one run of it (whose start costs most)."""
    asked = [capitals(root), abilities.build("past", root, items=12, shots=1, choices=4)]
    tasks = [harness.ranking_task(task, 1) for task in asked] + [harness.exact_task(asked[0], 1, tokenizer)]
    for arm, of_arm in mapped(root).items():
        named = [dataclasses.replace(task, name=f"{arm}/{task.name}") for task in of_arm]
        tasks += [harness.ranking_task(task, len(task.demonstrations)) for task in named]
    return harness.evaluate(parrot, tokenizer, [*tasks, harness.instruction_task(PROMPTS, tokenizer, 6)])


def test_ranking_is_the_harness_acc(root, tokenizer, parrot, found):
    for name, items in (("capital", 8), ("past", 12)):
        task = abilities.build(name, root, items=items, shots=1, choices=4)
        ours = continuations.score(parrot, tokenizer, task.prefix(1), task.questions())["ranking"]
        assert found[name]["acc"] == ours and 0 < sum(ours) < len(ours), "all alike: equality would mean nothing"


def test_exact_match_is_what_the_harness_generates(root, tokenizer, parrot, found):
    task = capitals(root)
    ours = continuations.score(parrot, tokenizer, task.prefix(1), task.questions())["exact"]
    assert found["capital-exact"]["exact"] == ours and ours[0] == 0, "the longer word counts as right"
    assert 0 < sum(ours) < len(ours), "all alike: equality would mean nothing"


def test_remapped_labels_are_the_harness_acc(root, tokenizer, parrot, found):
    tasks = mapped(root)
    plain = remapped.scores(parrot, tokenizer, tasks["remapped"])
    for arm, of_arm in tasks.items():
        scores = [found[f"{arm}/{task.name}"]["acc"] for task in of_arm]
        shares = [sum(values) / len(values) for values in scores]
        assert shares == pytest.approx(plain[arm], abs=1e-6)
        assert 0 < sum(shares) < len(shares), "all alike: equality would mean nothing"


def test_instructions_are_checked_on_what_the_harness_generates(tokenizer, parrot, found):
    answers = speaking.answer_greedily(parrot, tokenizer, [prompt.text for prompt in PROMPTS], 6)
    rows = [instructions.follow(prompt, answer) for prompt, answer in zip(PROMPTS, answers, strict=True)]
    assert found["instructions"] == {name: [row[name] for row in rows] for name in ("strict", "loose")}
    assert 0 < sum(found["instructions"]["strict"]) < len(rows), "all alike: equality would mean nothing"


@pytest.mark.parametrize(("said", "right"), [(" Lima\n", 1), (" Lima", 1), (" Lima, Peru", 1), (" Limassol", 0),
                                             (" Lim", 0), ("Lima", 0), (" the city of Lima", 0), ("", 0)])  # fmt: skip
def test_an_answer_must_come_first_and_end_with_its_word(said, right):
    assert harness._begins_with_gold({"gold": " Lima"}, [said]) == {"exact": float(right)}


def test_a_prompt_longer_than_the_context_is_refused_and_not_cut(root, tokenizer, parrot, monkeypatch):
    task = abilities.build("capital", root, items=4, shots=1, choices=4)
    monkeypatch.setattr(parrot.config, "max_position_embeddings", 20)
    for made in (harness.ranking_task(task, 1), harness.exact_task(task, 1, tokenizer)):
        with pytest.raises(UserError, match=r"a prompt of capital.* need \d+ tokens, the context holds 20; shorten it"):
            harness.evaluate(parrot, tokenizer, [made])


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


def test_the_command_shows_both_evaluators_on_the_same_items(root, parrot, tokenizer, monkeypatch, capsys):
    task = abilities.build("capital", root, items=6, shots=1, choices=4)
    ours, theirs = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    monkeypatch.setattr("mmlib.models.lm.open_checkpoint", lambda folder: (parrot, tokenizer))
    monkeypatch.setattr(continuations, "score", lambda *_: {"ranking": ours, "exact": theirs})
    said = {"acc": theirs, "exact": theirs}
    monkeypatch.setattr(harness, "evaluate", lambda model, tok, tasks: {tasks[0].config.task: said})
    harness.main(["capital", "--items", "6", "--shots", "1"])
    assert capsys.readouterr().out == (
        f"capital (items {task.hash}), acc: ours 0.500, harness 0.333, alike on 5 of 6 items\n"
        f"capital (items {task.hash}), exact: ours 0.333, harness 0.333, alike on 6 of 6 items\n"
    )
    with pytest.raises(UserError, match="unknown task `capitol`"):
        harness.main(["capitol"])


def test_the_command_pairs_every_kind_with_our_own_scores(root, parrot, tokenizer, found, monkeypatch):
    monkeypatch.setattr("mmlib.models.lm.open_checkpoint", lambda folder: (parrot, tokenizer))
    made = evaluators.pairs(["remapped", "capital", "instructions"], 3, 1, 2)
    assert [(pair.name, *pair.ours) for pair in made] == [
        ("capital", "acc"), ("capital", "exact"), ("remapped-0", "acc"), ("instructions", "strict", "loose"),
    ]  # fmt: skip
    assert all(len(values) == 3 for pair in made for values in pair.ours.values())
    assert [len(pair.task.dataset["test"]) for pair in made] == [3, 3, 3, 3]
