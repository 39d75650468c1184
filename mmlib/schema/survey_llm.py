"""Types of params.yaml: the companion of the survey of large language models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SurveyBytes:
    """Stage `survey_llm-bytes`: decoders of bytes for the scaling law and the position schemes."""

    widths: list[int]
    layers: int
    amounts: list[int]
    schemes: list[str]
    position_width: int
    position_bytes: int
    seeds: list[int]
    batch: int
    learning_rate: float
    test_windows: int


@dataclass(frozen=True)
class SurveyParity:
    """Stage `survey_llm-parity`: chain of thought against the answer alone."""

    width: int
    steps: list[int]
    longer_steps: int
    vote_steps: int
    seeds: list[int]
    batch: int
    learning_rate: float
    direct_learning_rate: float
    items: int


@dataclass(frozen=True)
class SurveyFrozen:
    """Stage `survey_llm-frozen`: decoding rules and demonstrations with SmolLM2."""

    prompts: int
    new: int
    tasks: list[str]
    items: int
    seeds: list[int]


@dataclass(frozen=True)
class SurveyRoofline:
    """Stage `survey_llm-roofline`: cost of a token of a prompt, of a generated one, of attention; rounding."""

    length: int
    batch: int
    repeats: int
    attention_length: int
    rounding_seeds: list[int]
    matrices: int


@dataclass(frozen=True)
class SurveyTuning:
    """Stage `survey_llm-tuning`: instruction mixtures, parameter-efficient tuning, preference tuning."""

    seeds: list[int]
    search_seed: int
    mixture_width: int
    mixture_base_steps: int
    mixture_seed_tasks: int
    mixture_examples: int
    mixture_steps: int
    mixture_items: int
    peft_width: int
    peft_batch: int
    peft_base_steps: int
    peft_steps: int
    peft_windows: int
    peft_learning_rates: list[float]
    preference_width: int
    preference_bytes: int
    preference_steps: int
    preference_batch: int
    preference_learning_rates: list[float]
    preference_prompts: int
    pairs: int
    betas: list[float]
    beta: float
    frontier_rates: list[float]
    weak_share: float


@dataclass(frozen=True)
class SurveyEmergence:
    """Stage `survey_llm-emergence`: recall by depth, sums by width."""

    seeds: list[int]
    batch: int
    items: int
    recall_width: int
    recall_steps: int
    every: int
    addition_widths: list[int]
    addition_steps: int


@dataclass(frozen=True)
class SurveySmol:
    """Stage `survey_llm-smol`: chain of thought and preference tuning of SmolLM2."""

    seeds: list[int]
    search_seed: int
    thought_items: int
    steering_pairs: int
    steering_steps: int
    steering_batch: int
    steering_prompts: int
    steering_rates: list[float]


@dataclass(frozen=True)
class SurveyLlm:
    """The companion to the survey of large language models, one section per compute stage."""

    bytes: SurveyBytes
    parity: SurveyParity
    frozen: SurveyFrozen
    roofline: SurveyRoofline
    tuning: SurveyTuning
    emergence: SurveyEmergence
    smol: SurveySmol
