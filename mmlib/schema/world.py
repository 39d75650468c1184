"""Types of params.yaml: the emoji world and its models."""

from __future__ import annotations

from dataclasses import dataclass


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
