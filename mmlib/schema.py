"""Types of params.yaml: a section per study, below it one per stage, every knob with its type.

Plumbing, as `config` is, which reads and checks the file against them: nothing here may change a number.
"""

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
class Quantization:
    """The quantization study, one section per stage."""

    bits: Bits
    components: Components
    outliers: Outliers
    family: Family
    compensation: Compensation


@dataclass(frozen=True)
class WorldClip:
    """Stage `world-clip`: the vision tower of the multimodal studies; `texts` tag lines per scene."""

    seed: int
    scenes: int
    most_objects: int
    width: int
    layers: int
    length: int
    texts: int
    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float
    test_scenes: int


@dataclass(frozen=True)
class WorldPool:
    """Stage `world-pool`: the instruction pool; scenes that its pictures are drawn from, and records."""

    seed: int
    pool_scenes: int
    pool_size: int


@dataclass(frozen=True)
class WorldBenchmarks:
    """The benchmarks: scenes of the test split that they draw from, items of each."""

    test_seed: int
    test_scenes: int
    items: int


@dataclass(frozen=True)
class WorldLlava:
    """Stage `world-llava`: stage 1 of LLaVA; `align_…` is the projector alone, the rest the language model."""

    seed: int
    scenes: int
    width: int
    layers: int
    align_steps: int
    align_batch: int
    align_learning_rate: float
    align_muon_learning_rate: float
    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float
    probe_scenes: int


@dataclass(frozen=True)
class WorldTuning:
    """Stage `world-tuning`: stage 2 of LLaVA on shares of the pool; of equal steps, some rehearse stage 1."""

    seeds: list[int]
    shares: list[float]
    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float
    rehearsed: int


@dataclass(frozen=True)
class World:
    """The emoji world and its base models."""

    pool: WorldPool
    clip: WorldClip
    benchmarks: WorldBenchmarks
    llava: WorldLlava
    tuning: WorldTuning


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
    mixture_teacher_steps: int
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
    weak_share: float


@dataclass(frozen=True)
class SurveyLlm:
    """The companion to the survey of large language models, one section per compute stage."""

    bytes: SurveyBytes
    parity: SurveyParity
    frozen: SurveyFrozen
    roofline: SurveyRoofline
    tuning: SurveyTuning


@dataclass(frozen=True)
class VlpTowers:
    """Stage `survey_vlp-towers`: free vectors (V2) and contrastive learning (V7)."""

    seeds: list[int]
    free_steps: int
    width: int
    scenes: int
    steps: int


@dataclass(frozen=True)
class VlpAnswers:
    """Stage `survey_vlp-answers`: modalities (V6) and compression (V9)."""

    seeds: list[int]
    scenes: int
    batch: int
    question_steps: int
    test_scenes: int


@dataclass(frozen=True)
class VlpCaptions:
    """Stage `survey_vlp-captions`: three captioners (V9)."""

    seeds: list[int]
    scenes: int
    batch: int
    caption_steps: int
    test_scenes: int


@dataclass(frozen=True)
class VlpFusion:
    """Stage `survey_vlp-fusion`: architectures (V1), shortlist then re-rank (V8)."""

    seeds: list[int]
    rates: list[float]
    scenes: int
    batch: int
    emoji_steps: int
    digits_steps: int
    test_scenes: int
    pictures: int


@dataclass(frozen=True)
class VlpTasks:
    """Stage `survey_vlp-tasks`: pre-training tasks (V3), visual tokens (V4), masks (V5)."""

    seeds: list[int]
    scenes: int
    batch: int
    task_steps: int
    tune_steps: int
    match_steps: int
    token_steps: int
    mask_steps: int
    test_scenes: int


@dataclass(frozen=True)
class SurveyVlp:
    """The companion to the survey of vision-language pre-trained models, one section per compute stage."""

    towers: VlpTowers
    answers: VlpAnswers
    captions: VlpCaptions
    fusion: VlpFusion
    tasks: VlpTasks


@dataclass(frozen=True)
class TiveRecipe:
    """How a target is trained and tested, in the studies `tive` and `redundancy` alike; `mmlib.tive.target`."""

    pool_share: float
    pool_seed: int
    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float
    rehearsed: int
    test_seed: int
    test_scenes: int
    items: int


@dataclass(frozen=True)
class TiveValues:
    """Stage `tive-values`: reference models, gradients, values, controls and selections."""

    left_out: list[str]
    reference_seeds: list[int]
    warm_up: float
    other_warm_ups: list[float]
    rank: int
    warm_up_steps: int
    warm_up_batch: int
    warm_up_learning_rate: float
    size: int
    rows_per_shard: int
    other_sizes: list[int]
    other_layers: list[str]
    wrong_task: str
    wrong: list[float]
    copies: float
    less_items: int
    less_scenes: int
    q: float
    q_standard: float
    q_sweep: list[float]
    budgets: list[float]
    selection_seeds: list[int]


@dataclass(frozen=True)
class TiveTargets:
    """Stage `tive-targets`: which arms are trained with which seeds."""

    seeds: list[int]
    few_seeds: list[int]
    main_arms: list[str]
    other_arms: list[str]
    small_arms: list[str]
    epoch_arms: list[str]


@dataclass(frozen=True)
class Tive:
    """The study of TIVE."""

    recipe: TiveRecipe
    values: TiveValues
    targets: TiveTargets


@dataclass(frozen=True)
class RedundancyCuts:
    """Stage `redundancy-cuts`: task groups, percent of their records that are kept, seeds; recipe of `Tive`."""

    groups: list[str]
    plain_levels: list[int]
    matched_levels: list[int]
    several: list[str]
    several_level: int
    emptied: str
    seeds: list[int]
    full_seeds: list[int]


@dataclass(frozen=True)
class Redundancy:
    """The study of redundant tasks."""

    cuts: RedundancyCuts


@dataclass(frozen=True)
class Params:
    """Everything in params.yaml."""

    profile: Literal["smoke", "laptop", "gpu", "paper"]
    lm: LanguageModel
    quantization: Quantization
    world: World
    survey_llm: SurveyLlm
    survey_vlp: SurveyVlp
    tive: Tive
    redundancy: Redundancy
