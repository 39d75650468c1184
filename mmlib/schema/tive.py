"""Types of params.yaml: the choice of instructions by value, and the redundancy of tasks, which shares its recipe."""

from __future__ import annotations

from dataclasses import dataclass


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
