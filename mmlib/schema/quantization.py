"""Types of params.yaml: the language model and the study of quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LanguageModel:
    """Stage `lm`: where the language model comes from and how its import is checked."""

    source: Literal["package", "hub"]
    hub_id: str
    hub_revision: str
    layers: int
    check_windows: int
    max_perplexity: float


@dataclass(frozen=True)
class Bits:
    """Stage `quantization-bits`: the grid of bit widths and what is measured on it."""

    widths: list[int]
    group: int
    row_widths: list[int]
    calibration_seeds: list[int]
    calibration_windows: int
    calibration_tokens: int
    longer_windows: list[int]
    longer_widths: list[int]
    damping: float
    act_order: bool
    text_windows: int
    text_tokens: int
    tasks: list[str]
    icl_items: int
    shots: int
    choices: int
    sample_tokens: int
    mappings: int
    mapping_demonstrations: int
    mapping_items: int
    prompts_per_kind: int
    prompts_per_live_kind: int
    answer_tokens: int
    answer_widths: list[int]
    once_widths: list[int]


@dataclass(frozen=True)
class Components:
    """Stage `quantization-components`: which linears stay at 16 bits; calibration and tasks as in `Bits`."""

    widths: list[int]
    group: int
    text_windows: int
    icl_items: int
    control_widths: list[int]


@dataclass(frozen=True)
class Outliers:
    """Stage `quantization-outliers`: INT8 activations; a case is `scale/sites/threshold`. Calibration as in `Bits`."""

    cases: list[str]
    key_cases: list[str]
    text_windows: int
    icl_items: int


@dataclass(frozen=True)
class Family:
    """Stage `quantization-family`: sizes, training and problems of the models that are trained here."""

    sizes: list[int]
    widths: list[int]
    group: int
    seeds: list[int]
    largest: int
    most_steps: int
    items: int
    steps: list[int]
    batch: int
    learning_rates: list[float]
    early_size: int
    early_steps: int


@dataclass(frozen=True)
class Compensation:
    """Stage `quantization-compensation`: fine-tuning before and after rounding; problems as in `Family`."""

    widths: list[int]
    steps: int
    batch: int
    rank: int
    alpha: int
    learning_rates: list[float]
    validation_seeds: list[int]


@dataclass(frozen=True)
class LmCompensation:
    """Stage `quantization-lm-compensation`: LoRA on the packaged language model; calibration and tasks as in `Bits`."""

    widths: list[int]
    group: int
    seeds: list[int]
    validation_seed: int
    steps: int
    batch: int
    facts: int
    answer_tokens: int
    rank: int
    alpha: int
    learning_rates: list[float]
    icl_items: int
    prompts: int
    text_windows: int


@dataclass(frozen=True)
class Quantization:
    """The quantization study, one section per stage."""

    bits: Bits
    components: Components
    outliers: Outliers
    family: Family
    compensation: Compensation
    lm_compensation: LmCompensation
