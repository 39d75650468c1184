"""Types of params.yaml: the companion of the survey of vision-language models."""

from __future__ import annotations

from dataclasses import dataclass


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
    token_steps: int
    mask_steps: int
    test_scenes: int


@dataclass(frozen=True)
class VlpControls:
    """Stage `survey_vlp-controls`: controls of V3, and V4 once more."""

    seeds: list[int]
    scenes: int
    batch: int
    task_steps: int
    tune_steps: int
    reading_steps: int
    test_scenes: int


@dataclass(frozen=True)
class SurveyVlp:
    """The companion to the survey of vision-language pre-trained models, one section per compute stage."""

    towers: VlpTowers
    answers: VlpAnswers
    captions: VlpCaptions
    fusion: VlpFusion
    tasks: VlpTasks
    controls: VlpControls
