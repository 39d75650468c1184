"""The bit-width study at tiny size: the grid of variants, one real evaluation, the evidence it yields."""

from __future__ import annotations

import json

import pytest
import torch

from mmlib import store
from mmlib.errors import UserError
from mmlib.metrics import lm
from mmlib.models.lm import save_checkpoint
from mmlib.quantization import bench, bits, bits_report, packed, stored
from mmlib.quantization.model import Spec, linears, quantize_model

SETTINGS = {
    "calibration_seeds": [0, 1], "calibration_windows": 2, "calibration_tokens": 32, "damping": 0.01,
    "act_order": True, "text_windows": 3, "text_tokens": 32, "tasks": ["capital", "plural"], "icl_items": 5,
    "longer_windows": [40], "longer_widths": [2], "group": 64, "shots": 2, "choices": 4, "sample_tokens": 3,
    "mappings": 2, "mapping_demonstrations": 2, "mapping_items": 1, "prompts_per_kind": 2, "prompts_per_live_kind": 2,
    "answer_tokens": 2, "answer_widths": [2], "once_widths": [],
}  # fmt: skip


def test_the_grid_is_complete_and_free_of_duplicates():
    made = bits.variants([8, 4, 3, 2], 64, [4], [0, 1, 2])
    assert len({v["name"] for v in made}) == len(made) == 5 * 3 + 5 + 3
    arms = {v["arm"] for v in made}
    assert {"16-bit", "bnb-int8", "bnb-nf4", "rtn-w4-row", "gptq-w3-g64"} <= arms and len(arms) == 13
    assert "gptq-w2-row" not in arms
    assert all((v["seed"] is not None) == (v["method"] == "gptq") for v in made)
    more = bits.variants([8, 4], 64, [], [0, 1], [128], [4])
    names = [v["name"] for v in more]
    assert names[0] == "16-bit" and names[5:7] == ["gptq-w4-g64-windows128/seed0", "gptq-w4-g64-windows128/seed1"]
    assert [v["name"] for v in more if v["tokens"] == 128] == names[5:7] and {v["tokens"] for v in more} == {128, None}


@pytest.fixture(scope="module")
def project(root, tokenizer, tmp_path_factory):
    """Real tables and text, a random two-block model with our tokenizer's vocabulary."""
    import shutil

    from transformers import LlamaConfig, LlamaForCausalLM

    home = tmp_path_factory.mktemp("project")
    (home / "mmlib").mkdir()
    shutil.copy(root / "params.yaml", home)
    shutil.copytree(root / "data/tables", home / "data/tables")
    (home / "data/text").mkdir()
    lines = (root / "data/text/docstrings.jsonl").read_text().splitlines()
    (home / "data/text/docstrings.jsonl").write_text("\n".join(lines[:: len(lines) // 60]) + "\n")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    save_checkpoint(LlamaForCausalLM(config), tokenizer, home / bench.CHECKPOINT)
    return home


@pytest.fixture
def evaluate(project, monkeypatch):
    monkeypatch.chdir(project)
    bench.open_bench.cache_clear()
    threads = torch.get_num_threads()
    yield lambda variant: bits.evaluate({"variant": variant, "settings": SETTINGS})
    torch.set_num_threads(threads)
    bench.open_bench.cache_clear()


def test_variants_are_measured_and_leave_no_trace_on_each_other(evaluate, project):
    variants = {v["name"]: v for v in bits.variants([4, 2], 64, [4], [0, 1])}
    reference = evaluate(variants["16-bit"])
    assert reference["words"].keys() == {"direct", "strict", "flexible", "said", "asked", "items"}
    assert max(reference["text"]["kl"]) == 0 and min(reference["text"]["top1"]) == 1
    first = evaluate(variants["gptq-w2-g64/seed0"])
    assert evaluate(variants["bnb-int8"])["icl"].keys() == {"2"} and first["icl"].keys() == {"0", "2"}
    assert first["file"]["same_logits"] and first["words"] is None
    assert evaluate(variants["gptq-w2-g64/seed1"])["file"] is None
    assert 0 <= first["file"]["tensor_bytes"] - first["size"]["total_bytes"] <= 2 * 7 * 2
    assert evaluate(variants["gptq-w2-g64/seed0"]) == first, "an earlier variant leaks into a later one"
    assert evaluate(variants["gptq-w2-g64/seed1"])["text"] != first["text"], "the calibration seed has no effect"
    assert evaluate(variants["16-bit"]) == reference
    order = [evaluate(variants[name])["text"]["kl"] for name in ("rtn-w4-g64", "rtn-w2-g64")]
    assert 0 < sum(order[0]) < sum(order[1])
    json.loads(store.dump_json(first))


def test_longer_windows_calibrate_the_ablation_which_measures_text_only(evaluate):
    usual, longer = (
        next(v for v in bits.variants([2], 64, [], [0], [40], [2]) if v["tokens"] == t) for t in (None, 40)
    )
    one, other = evaluate(usual), evaluate(longer)
    assert one["text"] != other["text"] and other["icl"] == {} and other["answers"] is other["remapped"] is None
    assert bits.calibrated(longer, SETTINGS)["calibration_tokens"] == 40


def test_where_seeds_hardly_differ_the_first_one_speaks_for_all(evaluate, monkeypatch):
    monkeypatch.setitem(SETTINGS, "once_widths", [2])
    said = [evaluate(v)["remapped"] for v in bits.variants([2], 64, [], [0, 1]) if v["method"] == "gptq"]
    assert said[0] is not None and said[1] is None


def test_later_seeds_do_not_answer_at_widths_that_no_claim_is_about(evaluate, monkeypatch):
    monkeypatch.setitem(SETTINGS, "answer_widths", [])
    said = [evaluate(v)["answers"] for v in bits.variants([2], 64, [], [0, 1]) if v["method"] == "gptq"]
    assert said[0] is not None and said[1] is None


def test_a_model_goes_on_with_the_linears_of_its_file_and_a_wrong_file_is_found_out(tiny_llama, monkeypatch):
    stored.at_16_bits(tiny_llama)
    report = quantize_model(tiny_llama, Spec("rtn", 2, 64))
    before = {name: linear.weight.clone() for name, linear in linears(tiny_llama).items()}
    window = torch.arange(6)[None]
    assert bits.saved_and_reloaded(tiny_llama, report, window)["same_logits"]
    assert all(torch.equal(linear.weight, before[name]) for name, linear in linears(tiny_llama).items())

    def spoiled(data):
        model = restore(data)
        linears(model)["model.layers.0.mlp.up_proj"].weight[0, 0] += 1
        return model

    restore = packed.restore
    monkeypatch.setattr(packed, "restore", spoiled)
    assert not bits.saved_and_reloaded(tiny_llama, report, window)["same_logits"]


def test_later_seeds_answer_only_what_a_claim_counts(evaluate, project):
    said = [evaluate(v)["answers"] for v in bits.variants([2], 64, [], [0, 1]) if v["method"] == "gptq"]
    assert None not in said[0]
    assert [i for i, text in enumerate(said[1]) if text is not None] == bits.floorless(SETTINGS, project)


def test_evidence_and_report_tables_follow_from_results(evaluate, project):
    made = bits.variants([2], 64, [], [0, 1], [40], [2])
    results = [evaluate(v) for v in made]
    evidence = bits.as_evidence(results, bench.task_list(SETTINGS, project), SETTINGS, project)
    hard = len(evidence["units"]["prompt_floorless"])
    assert evidence["n_asked"] == {"icl": 10, "text": 3, "mapping": 2, "prompt": 30, "prompt_floorless": hard}
    assert len(evidence["units"]["icl"]) == 10 and 0 < hard < 30
    assert evidence["metrics"].keys() == {
        "icl_em_0shot", "icl_em_2shot", "icl_rank_0shot", "icl_rank_2shot", "nll", "kl", "top1",
        "remapped_rank", "random_label_rank", "if_strict", "if_loose", "if_distinct", "if_known", "if_floorless",
    }  # fmt: skip
    assert evidence["metrics"]["nll"]["values"]["gptq-w2-g64"].keys() == {"0", "1"}
    assert evidence["metrics"]["if_floorless"]["values"]["gptq-w2-g64"].keys() == {"0", "1"}
    assert evidence["metrics"]["if_strict"]["values"]["gptq-w2-g64"].keys() == {"0"}
    assert evidence["metrics"]["icl_rank_2shot"]["floor"] == 0.25

    levels = bits_report.levels(results, evidence)
    table = bits_report.table(levels, shots=2).set_index("method")
    nll = evidence["metrics"]["nll"]["values"]["16-bit"]["-"]
    assert table.loc["16-bit", "perplexity"] == pytest.approx(lm.perplexity(nll))
    assert list(table.index) == ["16-bit", "bitsandbytes", "bitsandbytes", "GPTQ", "RTN"]
    by_task = bits_report.by_task(results, evidence, "icl_rank_2shot")
    assert set(by_task.columns) == {"capital", "plural"} and by_task.loc["16-bit"].between(0, 100).all()
    assert bits_report.samples(results, ["16-bit", "gptq-w2-g64"]).keys() == {"16-bit", "gptq-w2-g64"}


def test_calibration_text_that_overlaps_the_test_text_stops_the_variant(evaluate, project, monkeypatch):
    from mmlib import text

    monkeypatch.setattr(text, "PARTS", {"calibration": text.PARTS["test"], "test": text.PARTS["test"]})
    monkeypatch.setattr(bits, "calibration_windows", lambda tok, s, seed, root: bench.test_windows(tok, s, root))
    gptq = next(v for v in bits.variants([4], 64, [], [0]) if v["method"] == "gptq")
    with pytest.raises(UserError, match="shares 32 tokens with the calibration text"):
        evaluate(gptq)


def test_published_table_holds_the_confirmed_rows():
    table = bits_report.published()
    assert len(table) == 14 and set(table["bits"]) == {16, 8, 4, 2}
    row = table[(table["size"] == "30B") & (table["bits"] == 2)].iloc[0]
    assert (row["mmlu_0shot"], row["mmlu_5shot"], row["perplexity"]) == (3.7, 26.1, 25.1)
