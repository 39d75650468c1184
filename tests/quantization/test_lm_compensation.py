"""LoRA before and after GPTQ on the language model: disjoint texts, frozen low-bit weights, equal effort, real arms."""

from __future__ import annotations

import shutil

import pandas
import pytest
import torch

from mmlib import store
from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.metrics import continuations
from mmlib.models.lm import save_checkpoint
from mmlib.quantization import bench, lm_compensation, lm_lessons, lora
from mmlib.quantization import lm_compensation_report as report
from mmlib.quantization.model import linears

SETTINGS = {
    "widths": [2], "group": 64, "seeds": [0], "validation_seed": 100, "steps": 2, "batch": 2, "facts": 2,
    "answer_tokens": 3, "rank": 2, "alpha": 4, "learning_rates": [0.001, 0.01], "icl_items": 3, "prompts": 4,
    "text_windows": 2, "text_tokens": 24, "act_order": True, "damping": 0.01, "calibration_windows": 2,
    "calibration_tokens": 24, "sample_tokens": 2, "shots": 2, "choices": 3, "tasks": ["antonym", "past"],
}  # fmt: skip
TEMPLATE = "{% for m in messages %}<u>{{ m.content }}</u>{% endfor %}<a>"


@pytest.fixture(scope="module")
def home(root, tokenizer, tmp_path_factory):
    """Real tables and text, a random two-block model with the tests' tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(root / "data/tables", folder / "data/tables")
    (folder / "data/text").mkdir()
    lines = (root / "data/text/docstrings.jsonl").read_text().splitlines()
    (folder / "data/text/docstrings.jsonl").write_text("\n".join(lines[:: len(lines) // 60]) + "\n")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    save_checkpoint(LlamaForCausalLM(config), tokenizer, folder / bench.CHECKPOINT)
    return folder


@pytest.fixture
def shared(home):
    threads = torch.get_num_threads()
    opened = bench.open_bench(home, store.dump_json(SETTINGS))
    lora.strip(opened.model)
    opened.fresh_model()
    yield opened
    torch.set_num_threads(threads)


def texts(shared, home, seed=0):
    return lm_lessons.texts(shared, SETTINGS, "tune", seed, SETTINGS["steps"] * SETTINGS["batch"], home)


def test_things_and_facts_of_the_parts_are_disjoint_and_complete(home):
    things = [set(lm_lessons.things_of(part, 24)) for part in lm_lessons.PARTS]
    assert len(set.union(*things)) == sum(map(len, things)) == len(lm_lessons.things())
    for name in SETTINGS["tasks"]:
        rows = [lm_lessons.facts_of(part, SETTINGS, home)[name] for part in lm_lessons.PARTS]
        queries = [fact.query for part in rows for fact in part]
        assert len(set(queries)) == len(queries)
        (task,) = (task for task in bench.task_list(SETTINGS, home) if task.name == name)
        assert task.items == tuple(rows[0]), "these facts are not the items that are scored"
        assert not {fact.query for fact in task.demonstrations} & set(queries)


def test_the_tests_instructions_ask_of_each_wording_about_equally_often():
    asked = lm_lessons.instructions("test", 24)
    assert len({each.id for each in asked}) == len({each.text for each in asked}) == 24
    counts = [sum(each.wording == number for each in asked) for number in range(len(lm_lessons.WORDINGS))]
    assert max(counts) - min(counts) <= 1
    with pytest.raises(UserError, match="leave no thing for `tune`"):
        lm_lessons.instructions("tune", 200)


def test_half_are_lessons_and_half_answers_of_the_16_bit_model(shared, home):
    made = texts(shared, home)
    assert made == texts(shared, home) != texts(shared, home, seed=1)
    lessons, chats = made[::2], made[1::2]
    assert all(text.count(" -> ") == SETTINGS["facts"] for text in lessons)
    for text in chats:
        asked, said = text.removeprefix("<u>").split("</u><a>")
        from mmlib.quantization.speaking import answer_greedily

        assert said == answer_greedily(shared.model, shared.tokenizer, [asked], SETTINGS["answer_tokens"])[0]


def test_a_leaking_item_instruction_or_window_is_refused(shared):
    made = ["Give the opposite of each word.\nnight -> day\n"]
    lm_lessons.refuse_leaks(made, shared, SETTINGS)
    item = shared.tasks[0].items[0]
    with pytest.raises(UserError, match=f"test item `{item.query} -> {item.answer}` stands in a training text"):
        lm_lessons.refuse_leaks([*made, f"a -> b\n{item.query} -> {item.answer}\n"], shared, SETTINGS)
    asked = lm_lessons.instructions("test", SETTINGS["prompts"])[0]
    leaking = lm_lessons.chat(shared.tokenizer, asked.text, "no")
    with pytest.raises(UserError, match="stands in a training text"):
        lm_lessons.refuse_leaks([leaking], shared, SETTINGS)
    with pytest.raises(UserError, match="shares 24 tokens"):
        lm_lessons.refuse_leaks(["x " + shared.tokenizer.decode(shared.windows[1])], shared, SETTINGS)


def test_lora_trains_on_frozen_rounded_weights_and_comes_off_again(shared, home):
    made = texts(shared, home)
    grids = lm_compensation.rounded(shared, 2, SETTINGS, 0, home)
    frozen = {name: linear.weight.clone() for name, linear in linears(shared.model).items()}
    assert grids.keys() == frozen.keys()
    before = shared.text_scores(shared.model)
    trained = lm_compensation.tune(shared, made, SETTINGS, grids, 0.05, 0)
    assert trained["steps"] == 2 and trained["loss"] > 0
    assert shared.text_scores(shared.model) != before, "nothing was learned"
    assert all(torch.equal(linear.weight, frozen[name]) for name, linear in linears(shared.model).items())
    assert all("lora_" in name for name, parameter in shared.model.named_parameters() if parameter.requires_grad)
    with pytest.raises(UserError, match="already has an adapter"):
        lm_compensation.tune(shared, made, SETTINGS, grids, 0.05, 0)
    lora.strip(shared.model)
    assert shared.text_scores(shared.model) == before, "the adapter did not come off whole"


def test_a_merged_model_is_refused_where_the_weights_must_be_frozen(shared, home, monkeypatch):
    made = texts(shared, home)
    grids = lm_compensation.rounded(shared, 2, SETTINGS, 0, home)
    lm_compensation.tune(shared, made, SETTINGS, grids, 0.05, 0)
    tuned = shared.text_scores(shared.model)["nll"]
    lm_compensation.merged(shared)
    assert shared.text_scores(shared.model)["nll"] == pytest.approx(tuned, abs=1e-3), "merging changed the function"
    with pytest.raises(UserError, match="does not lie on its grids of 2 bits: merged, or never quantized"):
        lm_compensation.tune(shared, made, SETTINGS, grids, 0.05, 0)
    shared.fresh_model()
    with pytest.raises(UserError, match="merged, or never quantized"):
        lm_compensation.tune(shared, made, SETTINGS, grids, 0.05, 0)
    grids = lm_compensation.rounded(shared, 2, SETTINGS, 0, home)

    def moving(model, *_, **__):  # training that reaches the weights below the adapter
        linears(model)["model.layers.1.mlp.up_proj"].weight.data[0, 0] += 1e-3
        return 1.0

    monkeypatch.setattr(lm_compensation, "train_lm", moving)
    with pytest.raises(UserError, match=r"layers.1.mlp.up_proj does not lie on its grids"):
        lm_compensation.tune(shared, made, SETTINGS, grids, 0.05, 0)


def test_unequal_steps_or_texts_are_refused(shared, home):
    with pytest.raises(UserError, match="3 texts for 2 steps of 2"):
        lm_compensation.tune(shared, texts(shared, home)[:3], SETTINGS, {}, 0.001, 0)
    equal = [{"seed": 0, "trained": {"steps": 2, "texts": "a"}}, {"seed": 1, "trained": {"steps": 2, "texts": "b"}}]
    lm_compensation.refuse_unequal([*equal, {"seed": None, "trained": None}])
    for other in ({"steps": 3, "texts": "a"}, {"steps": 2, "texts": "c"}):
        with pytest.raises(UserError, match="arms of seed 0 had unequal steps or texts"):
            lm_compensation.refuse_unequal([*equal, {"seed": 0, "trained": other}])


def test_nats_of_an_answer_are_those_of_one_plain_forward_pass(shared, home):
    asked, said = lm_lessons.instructions("test", 2), ["Lima", "a capital of each"]
    questions = lm_lessons.test_questions(shared, asked, said)
    sums = continuations.score(shared.model, shared.tokenizer, lm_lessons.opening(shared.tokenizer), questions)
    for each, answer, found in zip(asked, said, sums["logprob"], strict=True):
        prompt = shared.tokenizer(f"<u>{each.text}</u><a>").input_ids
        ids = torch.tensor([prompt + shared.tokenizer(answer).input_ids])
        with torch.no_grad():
            logs = shared.model(ids).logits[0].log_softmax(-1)
        gold = sum(logs[at - 1, ids[0, at]].item() for at in range(len(prompt), ids.shape[1]))
        assert found == pytest.approx(gold, abs=1e-3)


def test_rates_are_chosen_for_every_width_without_the_tests(home, monkeypatch):
    monkeypatch.setattr(lm_compensation.store, "project_root", lambda: home)
    monkeypatch.setattr(lm_compensation, "measure", lambda *_: pytest.fail("a test was read"))
    rows = [row for shard in lm_compensation.validation_shards(SETTINGS) for row in lm_compensation.validate(shard)]
    assert {(row["bits"], row["learning_rate"]) for row in rows} == {(b, r) for b in (16, 2) for r in (0.001, 0.01)}
    losses = ((16, (2.0, 1.0)), (2, (3.0, 3.0)))
    made = [{"bits": bits, "learning_rate": rate, "nll": nll}
            for bits, row in losses for rate, nll in zip((0.1, 0.2), row, strict=True)]  # fmt: skip
    assert lm_compensation.chosen(made) == {"16": 0.2, "2": 0.1}


def test_all_arms_come_out_of_the_shards(home, monkeypatch):
    monkeypatch.setattr(lm_compensation.store, "project_root", lambda: home)
    rates = {"16": 0.01, "2": 0.01}
    results = [lm_compensation.evaluate(shard) for shard in lm_compensation.shards(SETTINGS, rates)]
    arms = {arm: scores for each in results for arm, scores in each["arms"].items()}
    assert arms.keys() == {"base-w16", "base-w2", "lora-before-w16", "lora-before-w2", "lora-after-w2"}
    assert all(value == 0 for value in arms["base-w16"]["kl"]), "the 16-bit model is not its own reference"
    tasks = bench.task_list(SETTINGS, home)
    evidence = lm_compensation.as_evidence(results, tasks, SETTINGS)
    for name, _, _ in lm_compensation.metrics(SETTINGS["shots"]):
        assert evidence["metrics"][name]["values"].keys() == arms.keys()
        gained = evidence["metrics"][f"{name}_gain"]["values"]
        assert gained.keys() == {arm for arm in arms if not arm.startswith("base")}
        for tuned, base in (("lora-after-w2", "base-w2"), ("lora-before-w16", "base-w16")):
            wanted = [a - b for a, b in zip(arms[tuned][name], arms[base][name], strict=True)]
            assert gained[tuned]["0"] == pytest.approx(wanted, abs=1e-4)


def made_up(values, higher_is_better=True, metric="answer_nll"):
    """Evidence of one metric: arm -> seed -> values."""
    evidence = Evidence("quantization", lm_compensation.STAGE)
    evidence.units("prompt", ["0/a", "0/b"], asked=2)
    arms = {(arm, seed): {metric: row} for arm, seeds in values.items() for seed, row in seeds.items()}
    for name, rows in ((metric, {key: row[metric] for key, row in arms.items()}),
                       (f"{metric}_gain", lm_compensation.gains(arms, metric))):  # fmt: skip
        evidence.metric(name, units="prompt", higher_is_better=higher_is_better, floor=None)
        for (arm, seed), row in rows.items():
            evidence.add(name, arm=arm, seed=seed, values=row)
    return evidence.as_dict()


NATS = {"base-w16": {None: [1.0, 2.0]}, "lora-before-w16": {0: [0.5, 1.5]}, "base-w2": {0: [8.0, 9.0]},
        "lora-after-w2": {0: [6.0, 7.0]}, "lora-before-w2": {0: [9.0, 9.0]}}  # fmt: skip


def test_the_report_counts_a_fall_of_nats_as_a_gain_and_subtracts_the_lesson():
    row = report.recovery(made_up(NATS, False), {"answer_nll": "answers"}).iloc[0]
    assert row["gain"] == "+2.00" and row["gain at 16 bits"] == "+0.50"
    assert row["recovery [95 %]"] == "+1.50 [+1.50, +1.50]" and row["bits"] == 2
    points = {
        arm: {seed: [1.0, 0.0] if "after" in arm else [0.0, 0.0] for seed in seeds} for arm, seeds in NATS.items()
    }
    row = report.recovery(made_up(points, metric="exact_5shot"), {"exact_5shot": "tasks"}).iloc[0]
    assert row["gain"] == "+50.0" and row["gain at 16 bits"] == "+0.0" and row["measure"] == "tasks, points"


def test_the_report_shows_nats_as_they_are_and_shares_in_percent():
    frame = report.levels(made_up(NATS, False))
    level = frame.set_index(["metric", "arm"])["value"]
    assert level["answer_nll", "base-w2"] == pytest.approx(8.5) and level["answer_nll_gain", "lora-after-w2"] == -2
    assert report.table(frame, "answer_nll").loc["no training", 16].startswith("1.50 [")
    shares = {arm: {seed: [1.0, 0.0] for seed in seeds} for arm, seeds in NATS.items()}
    frame = pandas.concat([report.levels(made_up(shares, metric=f"exact_{n}shot")) for n in (0, 5)])
    beside = report.beside(frame, 5)
    ours = beside[beside["subject"] == "SmolLM2-135M, ours"]
    assert ours["no training"].tolist() == [50.0] * 4 and ours["GPTQ, then LoRA"].isna().tolist() == [True, False] * 2
    paper = beside[(beside["subject"] == "LLaMA-7B") & (beside["test"] == "MMLU 5-shot")].set_index("bits")
    assert paper.loc[2].tolist()[2:] == [3.8, 1.2, 7.4] and paper.loc[16, "LoRA, then GPTQ"] == 37.7


def test_samples_and_rates_of_the_report():
    said = [{"lora-after-w2": ["b"]}, {"base-w16": ["a"], "base-w2": ["c"], "lora-before-w16": ["d"]}, {}]
    tried = [{"bits": bits, "learning_rate": 0.1, "nll": nll} for bits, nll in ((2, 3.0), (16, 1.0))]
    stored = {"results": [{"said": each} for each in said], "validated": tried}
    names = ["16 bits, no training", "16 bits, LoRA", "2 bits, no training", "2 bits, GPTQ, then LoRA"]
    assert list(report.said(stored)) == names
    assert report.validation(stored)[0.1].to_dict() == {16: 1.0, 2: 3.0}
