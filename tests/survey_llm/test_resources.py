"""The survey's tables: counts, ranges, sums that the survey itself prints; a planted fault for each reader."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.survey_llm import resources as r


@pytest.fixture(scope="module")
def evaluations():
    return r.read(r.EVALUATIONS)


def test_counts_and_sources(evaluations):
    assert len(r.read(r.MODELS)) == 80 and r.read(r.MODELS)["model"].is_unique
    assert len(r.read(r.CONFIGURATIONS)) == 17 and len(r.read(r.CORPORA)) == 12
    counts = {"Table 9": 48, "Table 10": 88, "Table 16": 450, "Table 17": 28, "Table 21": 72}
    assert evaluations["table"].value_counts().to_dict() == counts
    keys = ["table", "model", "setting", "metric"]
    assert not evaluations.duplicated(keys).any()
    assert (evaluations["source"] == "arXiv 2303.18223v19 " + evaluations["table"]).all()


def test_ranges(evaluations):
    percent = evaluations[evaluations["table"].isin(["Table 16", "Table 17"])]["value"]
    assert percent.between(0, 100).all()
    models = r.read(r.MODELS)
    assert models["size_b"].dropna().between(1, 1200).all() and models["tokens_b"].dropna().between(50, 20_000).all()
    assert models["release"].dropna().str.fullmatch(r"20(1[89]|2[0-5])-(0[1-9]|1[0-2])").all()
    assert r.read(r.CORPORA)["year"].between(2015, 2023).all()


def test_instruction_sets_and_configurations():
    sets = r.read(r.INSTRUCTION_SETS)
    assert sets.groupby("kind").size().to_dict() == {"task": 7, "chat": 5, "synthetic": 5, "alignment": 8}
    assert sets["thousands"].between(10, 100_000).all() and not sets.duplicated(["dataset", "kind"]).any()
    both = sets[sets["dataset"].duplicated(keep=False)]
    assert set(both["dataset"]) == {"HH-RLHF"} and sorted(both["thousands"]) == [160, 169], "printed in both tables"
    assert sets.groupby("kind")["thousands"].sum().to_dict() == {
        "task": 186_693, "chat": 513, "synthetic": 2_327, "alignment": 11_410,
    }  # fmt: skip
    shapes = r.read(r.CONFIGURATIONS)
    assert shapes["layers"].between(20, 120).all() and shapes["heads"].between(8, 256).all()
    assert shapes["width"].between(1024, 20_480).all() and shapes["peak_lr"].dropna().between(5e-6, 1e-2).all()
    assert (shapes["width"] % 64 == 0).all() and shapes["size_b"].dropna().between(1, 600).all()


def test_unconfirmed_cells_are_left_out():
    models = r.read(r.MODELS).set_index("model")
    assert models.loc["PaLM 2", ["size_b", "tokens_b"]].isna().all()
    assert np.isnan(models.loc["Galactica", "tokens_b"]), "106B is the size of its corpus"


def test_mixtures_of_table_10_add_up(evaluations):
    """The combined sets hold as many instructions as their parts."""
    count = r.instruction_table(evaluations, "instructions")["LLaMA 7B"]
    pair = count["ShareGPT"] + count[r.BASE]
    assert count["ShareGPT+Self-Instruct"] == pair and count["all three"] == pair + count["FLAN-T5"]


def test_known_ratios():
    ratios = r.tokens_per_parameter(r.read(r.MODELS)).set_index("model")["ratio"]
    for model, printed in {"Chinchilla": 20, "LLaMA": 21.5, "LLaMA 2": 28.6, "GPT-3": 1.7, "MT-NLG": 0.5}.items():
        assert ratios[model] == pytest.approx(printed, abs=0.06)
    blocks = r.block_parameters(r.read(r.CONFIGURATIONS)).set_index("model")["ratio"]
    for model in ("GPT-3", "OPT", "BLOOM", "PanGu-alpha", "Galactica", "MT-NLG"):
        assert abs(blocks[model] - 1) < 0.021
    assert blocks["T5"] < 0.1 and blocks["Falcon"] > 1.15


def test_strategies_and_widths(evaluations):
    gain = r.strategy_effects(evaluations).set_index(["strategy", "benchmark", "model"])["gain"]
    assert gain["scaling", "MMLU", "LLaMA 7B"] == pytest.approx(-3.71)
    assert gain["difficulty", "MMLU", "LLaMA 13B"] == pytest.approx(6.42)
    assert (gain.loc[["complexity", "diversity"]] > 0).all() and len(gain) == 16
    table = r.quantized(evaluations, "MMLU")
    assert (table[4] - table[16]).mean() == pytest.approx(-1.40, abs=0.005)
    assert (table[8] - table[16]).mean() == pytest.approx(-0.71, abs=0.005)


def test_printed_arithmetic():
    """Section 9: examples that the survey works out, and two that it gets wrong."""
    assert r.model_state_bytes(6.7e9) == pytest.approx(107.2e9)
    assert r.linear_intensity(8 * 1024, 4096) == pytest.approx(2730.67, abs=0.005)
    assert r.linear_intensity(8, 4096) == pytest.approx(7.98, abs=0.005)
    assert r.attention_intensity(1024, 4096, 32) == pytest.approx(114.67, abs=0.005)
    assert r.machine_balance() == pytest.approx(153.0, abs=0.05), "printed: 142.51"
    assert r.activation_bytes(1, 2048, 4096, 32, 32, 32000) == pytest.approx(18.6e9, rel=0.005), "printed: 16 GB"
    waves = r.rope_wavelengths(128)
    assert waves[0] == pytest.approx(6.28, abs=0.01) and waves[-1] == pytest.approx(54_410, abs=1)


def agreed(errata, found):
    """Ids whose recomputed number stands in the row: as corrected, or as printed where only the meaning is wrong."""
    numbers = {
        row.id: f"{row.printed if row.kind == 'meaning' else row.corrected}".split()[0] for row in errata.itertuples()
    }
    return {
        name
        for name, value in found.items()
        if float(numbers[name]) == round(value, len(numbers[name].partition(".")[2]))
    }


def test_every_erratum_that_says_so_is_computed(evaluations):
    errata, found = r.read(r.ERRATA), r.recomputed(evaluations)
    assert len(errata) == 16 and errata["id"].is_unique
    assert set(errata["evidence"]) == {"computed", "read"}
    assert set(found) == set(errata[errata["evidence"] == "computed"]["id"]) == agreed(errata, found)
    wrong = errata.replace({"corrected": {"153.0": "142.51"}})
    assert agreed(wrong, found) == set(found) - {"balance"}, "the planted fault: the printed number again"


def test_a_row_without_source_and_a_missing_table_are_refused(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("model,source\nx,\n")
    with pytest.raises(UserError, match="without a source"):
        r.read(bad)
    with pytest.raises(UserError, match="is missing"):
        r.read(tmp_path / "none.csv")


def test_evidence_pairs_and_a_dropped_cell_is_noticed(evaluations):
    made = r.as_evidence(evaluations)
    assert made["metrics"]["table21"]["values"]["LLaMA 7B, 16-bit"]["-"][1] == pytest.approx(47.34)
    lost = evaluations[~((evaluations["metric"] == "MMLU") & (evaluations["setting"] == "FLAN-v2 4-bit"))]
    with pytest.raises((KeyError, ValueError)):
        import mmlib.store as store

        store.dump_json(r.as_evidence(lost))  # NaN is no JSON
