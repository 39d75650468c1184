"""Types of params.yaml: the video study."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VlabClip:
    """Stage `vlab-clip`: clips of all stages of the study, and the CLIP and reader that every run starts from."""

    clip_seed: int
    nouns: int
    kinds: list[str]
    clips: int
    test_clips: int
    stills: int
    width: int
    layers: int
    steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float
    read_steps: int
    read_batch: int
    read_learning_rate: float
    read_muon_learning_rate: float


@dataclass(frozen=True)
class VlabTuning:
    """Stage `vlab-tuning`: pairs of learning rate and pace, tried for every arm of `tuned`."""

    tuning_seed: int
    tuned: list[str]
    tries: list[list[float]]


@dataclass(frozen=True)
class VlabAdapting:
    """Stage `vlab-adapting`: stage 1; `clip_pace` multiplies the rate of CLIP."""

    seeds: list[int]
    arms: list[str]
    ablations: list[str]
    kept: list[str]
    muon_ratio: float
    blocks: list[int]
    hidden: int
    steps: int
    contrastive_steps: int
    batch: int
    questions: int
    clip_pace: float
    answer_share: float


@dataclass(frozen=True)
class VlabBlending:
    """Stage `vlab-blending`: stage 2, on frozen encoders of stage 1; batches and questions as in `VlabAdapting`."""

    forms: list[str]
    source: str
    blend_steps: int
    blend_learning_rate: float


@dataclass(frozen=True)
class VlabStudy:
    """The video study, one section per stage."""

    clip: VlabClip
    tuning: VlabTuning
    adapting: VlabAdapting
    blending: VlabBlending
