"""Tables of the report notebooks, from small results written out by hand."""

from __future__ import annotations

import pytest

from mmlib.evidence import Evidence
from mmlib.quantization import (
    bits_report,
    compensation_report,
    components_report,
    family_report,
    outliers_report,
    samples,
)


def evidence(metrics, count=20):
    """{metric: (units, higher is better, {arm: {seed: value of every unit}})} as evidence with a little spread."""
    made = Evidence("quantization", "some-stage")
    made.units("u", [f"task/{number}" for number in range(count)], asked=count)
    made.units("text", [f"window/{number}" for number in range(count)], asked=count)
    for name, (higher, arms) in metrics.items():
        made.metric(name, units="u", higher_is_better=higher, floor=None)
        for arm, seeds in arms.items():
            for seed, value in seeds.items():
                spread = [value + 0.01 * (number % 3 - 1) for number in range(count)]
                made.add(name, arm=arm, seed=seed, values=spread)
    return made.as_dict()


def test_gptq_minus_rtn_tells_which_is_better_for_scores_and_for_losses():
    arms = {"gptq-w3-g64": {0: 0.2, 1: 0.3}, "rtn-w3-g64": {None: 0.5}, "gptq-w8-g64": {0: 0.5, 1: 0.5},
            "rtn-w8-g64": {None: 0.5}, "rtn-w4-row": {None: 0.1}}  # fmt: skip
    made = evidence({"icl_em_5shot": (True, arms), "kl": (False, arms)})
    score = bits_report.gptq_minus_rtn(made, "icl_em_5shot").set_index("bits")
    assert score.loc[3, "better"] == "RTN" and score.loc[8, "better"] == "undecided" and list(score.index) == [8, 3]
    assert score.loc[3, "GPTQ minus RTN [95 %]"].startswith("-25 [")
    assert bits_report.gptq_minus_rtn(made, "kl").set_index("bits").loc[3, "better"] == "GPTQ"


def test_longer_calibration_is_compared_with_the_usual_one_seed_by_seed():
    arms = {"gptq-w3-g64": {0: 0.8, 1: 0.6}, "gptq-w3-g64-windows128": {0: 0.7, 1: 0.5}, "rtn-w3-g64": {None: 0.65}}
    settings = {"calibration_tokens": 32, "calibration_windows": 64, "longer_windows": [128], "longer_widths": [3],
                "group": 64}  # fmt: skip
    made = evidence({"kl": (False, arms), "nll": (False, arms)})
    table = bits_report.longer(made, settings)
    assert list(table["calibration"]) == ["64 x 32 tokens", "64 x 128 tokens"]
    assert [float(text) for text in table["KL to 16-bit"]] == pytest.approx([0.7, 0.6], abs=0.002)
    assert list(table["KL to 16-bit, change [95 %]"]) == ["", "-0.1 [-0.1, -0.1]"]
    assert [text.split(" [")[0] for text in table["KL, minus RTN [95 %]"]] == ["+0.05", "-0.05"]
    assert bits_report.order_by_calibration(made, settings) == [
        "3 bits, windows of 32 tokens: neither is surely nearer to the 16-bit model",
        "3 bits, windows of 128 tokens: neither is surely nearer to the 16-bit model",
    ]
    apart = {**arms, "gptq-w3-g64": {0: 0.9, 1: 0.91}, "gptq-w3-g64-windows128": {0: 0.4, 1: 0.41}}
    told = bits_report.order_by_calibration(evidence({"kl": (False, apart)}), settings)
    assert "rounding to nearest is" in told[0] and "GPTQ is" in told[1]


def test_files_show_what_was_counted_beside_what_is_there():
    file = {"tensor_bytes": 101, "file_bytes": 120, "same_logits": True}
    other = {**file, "same_logits": False}
    results = [{"variant": {"arm": "rtn-w2-g64"}, "size": {"total_bytes": 90}, "file": None},
               {"variant": {"arm": "gptq-w2-g64"}, "size": {"total_bytes": 100}, "file": file},
               {"variant": {"arm": "gptq-w4-g64"}, "size": {"total_bytes": 200}, "file": other}]  # fmt: skip
    table = bits_report.files(results).set_index("arm")
    assert list(table.index) == ["gptq-w4-g64", "gptq-w2-g64"]
    assert list(table["logits after reloading"]) == ["NOT equal", "equal"]
    assert table.loc["gptq-w2-g64", "bytes of tensors"] == 101


def test_samples_come_from_the_first_seed_and_cannot_break_a_table():
    quiet = {"said": None}
    results = [
        {"bits": 2, "arms": {"none": {"said": ["a | b\nc"]}, "down_proj": quiet}},
        {"bits": 2, "arms": {"none": quiet, "down_proj": quiet}},
        {"bits": 16, "arms": {"16-bit": {"said": [""]}}},
    ]
    said = components_report.samples(results)
    assert said == {"16-bit": [""], "2 bits, kept: none": ["a | b\nc"]}
    lines = samples.tables(["Why?"], said)[0].splitlines()
    assert lines[0] == "**Why?**" and lines[-2:] == ["| 16-bit | (nothing) |", "| 2 bits, kept: none | a b c |"]
    arms = {"token-residual4-top3": {"said": ["x"]}, "16-bit": {"said": ["y"]}, "token-all4-top3": {"kl": [0]}}
    assert list(outliers_report.samples([{"arms": arms}])) == ["16-bit", "token-residual4-top3"]


def test_published_values_agree_with_the_paper_s_other_tables():
    """What Fig. 2 calls nothing kept is Table 1 at 2 bits; GSM8K as the family report shows it is Table 1's."""
    table = bits_report.published().set_index(["size", "bits"])
    figure = components_report.published()
    for row in figure[figure["kept at 16 bits"] == "nothing"].itertuples():
        assert row.mmlu_5shot == table.loc[(row.size, 2), "mmlu_5shot"]
    gsm8k = family_report.published()
    assert list(gsm8k.index) == ["7B", "13B", "30B", "65B"] and list(gsm8k.columns) == [16, 8, 4, 2]
    assert gsm8k.loc["30B", 4] == 35.4 and gsm8k.loc["65B"].isna().sum() == 2
    assert set(outliers_report.published()["size"]) == {"7B", "13B"}


def test_a_recovery_is_shown_beside_the_lesson_that_it_exceeds():
    gains = {"lora-after-w2": {0: 0.5, 1: 0.6}, "lora-before-w16": {0: 0.3, 1: 0.2},
             "lora-distilled-w2": {0: 0.1, 1: 0.1}, "lora-distilled-w16": {0: 0.2, 1: 0.2}}  # fmt: skip
    made = evidence({"cot_gain": (True, gains), "cot_logprob_gain": (True, gains)})
    table = compensation_report.recovery(made, "cot_gain").set_index("taught by")
    shown = [float(text) for text in table.loc["right answers", ["gain", "gain at 16 bits"]]]
    assert shown == pytest.approx([55, 25], abs=0.2)
    assert table.loc["right answers", "recovery [95 %]"].startswith("+30.0 [")
    assert table.loc["the 16-bit model", "recovery [95 %]"].startswith("-10.0 [")
    nats = compensation_report.recovery(made, "cot_logprob_gain")
    assert nats.loc[0, "recovery [95 %]"].startswith("+0.30 [")
    levels = compensation_report.levels(made).set_index(["metric", "arm"])["value"]
    assert levels["cot_logprob_gain", "lora-after-w2"] == pytest.approx(0.5495, abs=0.001)
    assert levels["cot_gain", "lora-after-w2"] == pytest.approx(54.95, abs=0.1)


def members():
    """Two sizes, two seeds, at 16 and 4 bits; one more that was stopped early."""
    made = []
    for width, size, score in ((32, 100, 0.2), (64, 800, 0.6)):
        for seed in (0, 1):
            arms = {
                str(bits): {"size": {"block_bytes": size * bits / 16 / 8, "total_bytes": (size * bits / 16 + 50) / 8},
                            "scores": {"cot_strict": [score] * 4}, "said": [f"{width} {bits}"]}
                for bits in (16, 4)
            }  # fmt: skip
            checked = {"cot_strict": score + 0.1 * seed, "cot_logprob": -score}
            made.append({"width": width, "seed": seed, "early": False, "steps": 10, "arms": arms, "validated": checked})
    return [{**made[0], "early": True}, *made]


def test_family_tables():
    trials = [{"width": w, "learning_rate": rate, "steps": 5, "cot_strict": 0.1, "cot_logprob": -1 - rate}
              for w in (32, 64) for rate in (0.1, 0.2)]  # fmt: skip
    stored = {"trials": trials, "results": members()}
    assert family_report.trials(stored).loc[64, 0.2] == pytest.approx(-1.2)
    lengths = family_report.lengths(stored).set_index("hidden size")
    assert list(lengths.index) == [64, 32] and lengths.loc[64, "chain of thought %, all"] == pytest.approx(65)
    assert lengths.loc[64, "log p chain, half"] == pytest.approx(-1.1), "the better of the two trials"
    assert family_report.samples(stored["results"], False) == {16: ["32 16"], 4: ["32 4"]}
    units = {"units": {"problem": ["1-step/a", "1-step/b", "2-step/c", "2-step/d"]}}
    equal = family_report.at_equal_bits(stored["results"], units, [4])
    assert list(equal["counted"]) == ["block", "with embedding"]
    assert equal.loc[0, "kilobits"] == "0 to 0" and equal.loc[0, "against"] == "16 bits"
    assert float(equal.loc[0, "4 bits, %"].split()[0]) > float(equal.loc[0, "its %"].split()[0])
    for result in stored["results"]:
        for arm in result["arms"].values():
            arm["scores"]["cot_logprob"] = [-2.0] * 4
    nats = family_report.at_equal_bits(stored["results"], units, [4], "cot_logprob")
    assert nats.loc[0, "4 bits, nats"] == nats.loc[0, "its nats"] == "-2.00 [-2.00, -2.00]"


def test_the_model_stopped_early_has_a_table_of_its_own():
    arms = {"early32-w16": {0: 0.5}, "early32-w2": {0: 0.1}, "family32-w16": {0: 0.9}}
    metrics = ("direct_em", "cot_strict", "cot_flexible", "cot_logprob")
    table = family_report.stopped_early(evidence({metric: (True, arms) for metric in metrics}))
    assert list(table.index) == [16, 2] and table.loc[2, "direct %"].startswith("9.9 [")


def test_outlier_tables_keep_cases_and_arms_apart():
    arms = {f"token-residual4-{arm}": {0: 1.0, 1: 1.2} for arm in ("non-outlier", "top3", "random3")}
    made = evidence({"kl": (False, {**arms, "16-bit": {None: 0.0}, "token-everything": {None: 3.0}})})
    levels = outliers_report.levels(made)
    assert set(zip(levels["scale"], levels["case"], strict=True)) == {("token", "residual4")}
    assert set(levels["arm"]) == {"non-outlier", "top3", "random3"}
    table = outliers_report.table(levels, "kl")
    assert list(table.columns) == ["scale", "case", "no outlier", "three others", "the first three"]
    assert table.loc[0, "no outlier"].startswith("1.100 [")
    top = [{"site": "ffn-in", "dim": 7, "layers": 3, "largest": 9.5}]
    found = outliers_report.found([{"seed": 1, "found": [{"case": "a", "outliers": 9, "top": top}]},
                                   {"seed": None, "found": []}])  # fmt: skip
    assert found.iloc[0].tolist() == ["a", 1, 9, "ffn-in 7, 3 layers, 9.5"]


def test_a_gain_at_16_bits_is_read_from_the_run_that_is_both_before_and_after():
    arms = {"base-w16": {0: 0.3}, "base-w2": {0: 0.1}, "lora-before-w16": {0: 0.6}, "lora-before-w2": {0: 0.1},
            "lora-after-w2": {0: 0.4}, "lora-distilled-w16": {0: 0.3}, "lora-distilled-w2": {0: 0.2},
            "full-before-w16": {0: 0.9}, "full-before-w2": {0: 0.1}}  # fmt: skip
    levels = compensation_report.levels(evidence({"cot_strict": (True, arms)}))
    gains = compensation_report.gains(levels, "cot_strict")
    assert gains.loc[16].tolist() == pytest.approx([30, 0, 30]) and gains.loc[2].tolist() == pytest.approx([30, 10, 10])
    stored = {"results": [{"said": {"base-w2": ["first"]}}, {"said": {"base-w2": ["second"], "x": ["y"]}}],
              "validated": [{"way": "lora", "learning_rate": 0.1, "solved": s} for s in (0.2, 0.4)]}  # fmt: skip
    assert compensation_report.samples(stored, ["base-w2", "missing"]) == {"base-w2": ["first"]}
    assert compensation_report.validation(stored).loc["lora", 0.1] == pytest.approx(30)
