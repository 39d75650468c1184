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
class VlabAdapting:
    """Stage `vlab-adapting`: stage 1; every arm's `…_pace` multiplies the rate of the adapters and of CLIP."""

    seeds: list[int]
    tuning_seed: int
    arms: list[str]
    ablations: list[str]
    kept: list[str]
    tuned: list[str]
    learning_rates: list[float]
    learning_rate: float
    muon_ratio: float
    blocks: list[int]
    hidden: int
    steps: int
    contrastive_steps: int
    batch: int
    questions: int
    adapter_pace: float
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
    adapting: VlabAdapting
    blending: VlabBlending
