"""The survey's tables as data, and the arithmetic that it prints about models, memory and accelerators.

Numbers are facts from the survey (version 19, table named in each row's `source`) in a layout of our own; what our
reading of the survey could not confirm was left out. Sections and equations below are those of version 19.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlib.errors import UserError
from mmlib.evidence import Evidence

if TYPE_CHECKING:
    from pandas import DataFrame

MODELS = Path(__file__).with_name("models.csv")  # 80 models; sizes and tokens in billions
CONFIGURATIONS = Path(__file__).with_name("configurations.csv")  # Tables 5 and 8
EVALUATIONS = Path(__file__).with_name("evaluations.csv")  # 686 cells of Tables 9, 10, 16, 17, 21
CORPORA = Path(__file__).with_name("corpora.csv")  # Table 2, gigabytes
INSTRUCTION_SETS = Path(__file__).with_name("instruction_sets.csv")  # Tables 3 and 4, thousands of examples
ERRATA = Path(__file__).with_name("errata.csv")  # what the survey prints, and what it should, one row each

BASE = "Self-Instruct-52K"
STRATEGIES = ("complexity", "diversity", "difficulty", "scaling")
SIZES = ("LLaMA 7B", "LLaMA 13B")
BENCHMARKS = ("MMLU", "BBH3k")
A100_FLOPS, A100_BYTES = 312e12, 2039e9  # per second, section 9.4


def read(path: Path) -> DataFrame:
    """One of the tables above; every row must say where it comes from."""
    import pandas

    if not path.is_file():
        raise UserError(f"{path} is missing", "restore it with `git checkout`")
    frame = pandas.read_csv(path)
    if frame["source"].isna().any():
        raise UserError(f"{path.name} has a row without a source", "name table and version")
    return frame


def tokens_per_parameter(models: DataFrame) -> DataFrame:
    """Models whose size and token count are both printed, with `ratio`, by date of release."""
    known = models.dropna(subset=["size_b", "tokens_b", "release"])
    return known.assign(ratio=known["tokens_b"] / known["size_b"]).sort_values(["release", "model"])


def block_parameters(configurations: DataFrame) -> DataFrame:
    """`blocks_b`, 12·L·d² in billions (attention 4d², feed-forward 8d²), and its ratio to the printed size."""
    blocks = 12 * configurations["layers"] * configurations["width"] ** 2 / 1e9
    return configurations.assign(blocks_b=blocks, ratio=blocks / configurations["size_b"])


def instruction_table(evaluations: DataFrame, metric: str) -> DataFrame:
    """Table 10 for one metric: a row per instruction mixture, a column per model size."""
    part = evaluations[(evaluations["table"] == "Table 10") & (evaluations["metric"] == metric)]
    return part.pivot(index="setting", columns="model", values="value")[list(SIZES)]


def strategy_effects(evaluations: DataFrame) -> DataFrame:
    """Table 10: accuracy of each strategy minus plain Self-Instruct, by benchmark and size."""
    rows = []
    for benchmark in BENCHMARKS:
        table = instruction_table(evaluations, benchmark)
        for strategy in STRATEGIES:
            gain = table.loc[f"Self-Instruct w/ {strategy}"] - table.loc[BASE]
            rows += [{"strategy": strategy, "benchmark": benchmark, "model": m, "gain": gain[m]} for m in SIZES]
    import pandas

    return pandas.DataFrame(rows)


def quantized(evaluations: DataFrame, metric: str) -> DataFrame:
    """Table 21 for one metric: a row per model and tuning set, a column per bit width."""
    part = evaluations[(evaluations["table"] == "Table 21") & (evaluations["metric"] == metric)]
    split = part["setting"].str.rsplit(" ", n=1)
    part = part.assign(data=split.str[0], bits=split.str[1].str.removesuffix("-bit").astype(int))
    return part.pivot(index=["model", "data"], columns="bits", values="value")


def recomputed(evaluations: DataFrame) -> dict[str, float]:
    """Erratum -> what this code, or a cell of the survey's own tables, gives, where that can be computed."""
    alpha, beta = 0.34, 0.28  # Hoffmann et al. 2022, equation 10

    def cell(table: str, metric: str, model: str, setting: str = "") -> float:
        part = evaluations[(evaluations["table"] == table) & (evaluations["metric"] == metric)]
        part = part[(part["model"] == model) & part["setting"].str.contains(setting, regex=False)]
        return float(part["value"].item())

    sizes = ("7B", "13B", "30B", "65B")
    speeds = [
        [cell("Table 9", "tokens_per_s", f"LLaMA {s}", f"3090 inference {b}-bit") for b in (8, 16)] for s in sizes
    ]
    return {
        "exponent-n": beta / (alpha + beta), "exponent-d": alpha / (alpha + beta), "balance": machine_balance(),
        "activations": activation_bytes(1, 2048, 4096, 32, 32, 32000) / 1e9, "states": model_state_bytes(6.7e9) / 1e9,
        "wikifact": cell("Table 17", "simple_prompt", "ChatGPT", "WikiFact"),
        "wikifact-designed": cell("Table 17", "designed_prompt", "ChatGPT", "WikiFact"),
        "hellaswag": cell("Table 16", "HellaSwag_acc", "LLaMA (7B)"),
        "crows-pairs": cell("Table 16", "CrowSPairs_lower_better", "ChatGPT"),
        "alfworld": cell("Table 16", "ALFWorld_success", "Claude"),
        "eight-bit-speed": float(sum(eight < sixteen for eight, sixteen in speeds)),
    }  # fmt: skip


def as_evidence(evaluations: DataFrame) -> dict:
    """Per cell of the survey's tables what its own statements compare. Printed numbers: one run each, no seeds."""
    evidence = Evidence("survey_llm", "survey_llm-tables")
    for benchmark, name in zip(BENCHMARKS, ("mmlu", "bbh"), strict=True):
        table = instruction_table(evaluations, benchmark)
        evidence.units(name, [f"mixture/{mixture}" for mixture in table.index], asked=9)
        evidence.metric(f"table10_{name}", units=name, higher_is_better=True, floor=None)
        for model in SIZES:
            evidence.add(f"table10_{name}", arm=model, seed=None, values=[float(v) for v in table[model]])
    _strategies(evidence, evaluations)
    _widths(evidence, evaluations)
    return evidence.as_dict()


def _strategies(evidence: Evidence, evaluations: DataFrame) -> None:
    effects = strategy_effects(evaluations)
    for name, wanted in (("selection", ["complexity", "diversity"]), ("more", ["scaling"])):
        part = effects[effects["strategy"].isin(wanted)]
        units = [f"{r.benchmark}/{r.strategy}, {r.model}" for r in part.itertuples()]
        evidence.units(name, units, asked=4 * len(wanted))
        evidence.metric(f"gain_{name}", units=name, higher_is_better=True, floor=None)
        evidence.add(f"gain_{name}", arm="strategy", seed=None, values=[float(v) for v in part["gain"]])
        evidence.add(f"gain_{name}", arm=BASE, seed=None, values=[0.0] * len(part))


def _widths(evidence: Evidence, evaluations: DataFrame) -> None:
    tables = {name: quantized(evaluations, name) for name in ("MMLU", "BBH")}
    sets = sorted({data for _, data in tables["MMLU"].index})
    evidence.units("tuned", [f"{name}/{data}" for name in tables for data in sets], asked=6)
    evidence.metric("table21", units="tuned", higher_is_better=True, floor=None)
    for model in SIZES:
        for bits in (16, 8, 4):
            values = [float(table.loc[(model, data), bits]) for table in tables.values() for data in sets]
            evidence.add("table21", arm=f"{model}, {bits}-bit", seed=None, values=values)


# ---- arithmetic of sections 4.3 and 9 --------------------------------------------------------------------------------


def model_state_bytes(parameters: float) -> float:
    """16 bytes a parameter: fp16 weight and gradient, fp32 weight and two Adam moments (section 9.3.1)."""
    return 16 * parameters


def activation_bytes(batch: int, length: int, width: int, heads: int, layers: int, vocabulary: int) -> float:
    """Kept for the backward pass: L·(20BTH + 6BTH' + 2BT²N) + 2BTH + 4BTV, H' about 8H/3 (section 9.3.1)."""
    inner = math.ceil(width * 8 / 3 / 256) * 256  # LLaMA rounds its feed-forward width up to a multiple of 256
    block = 20 * batch * length * width + 6 * batch * length * inner + 2 * batch * length**2 * heads
    return layers * block + 2 * batch * length * width + 4 * batch * length * vocabulary


def linear_intensity(tokens: int, width: int) -> float:
    """FLOPs per byte of a square projection in 16 bits, 2·n·d² / (2·n·d + 2·d²): input and weights (section 9.4.1)."""
    return tokens * width / (tokens + width)


def attention_intensity(length: int, width: int, heads: int) -> float:
    """FLOPs per byte of attention over a prompt, (4T²H + 4T²N) / (4TH + 4T²N) (section 9.4.1)."""
    return length * (width + heads) / (width + length * heads)


def machine_balance(flops: float = A100_FLOPS, bytes_per_second: float = A100_BYTES) -> float:
    """FLOPs a byte above which an accelerator is bound by arithmetic."""
    return flops / bytes_per_second


def rope_wavelengths(head_width: int, base: float = 10_000) -> np.ndarray:
    """Tokens per turn of each rotary pair, 2π·b^(2i/d), i = 0 … d/2 - 1 (section 4.2.2)."""
    return 2 * np.pi * base ** (2 * np.arange(head_width // 2) / head_width)
