"""Types of params.yaml: the study of generated questions and captions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JadeData:
    """Stage `jade-data`: generator, filters, and the pictures that data are made about; `mmlib.jade.study`."""

    seeds: list[int]
    data_seed: int
    scenes: int
    pictures: int
    together: int
    align_steps: int
    batch: int
    learning_rate: float
    muon_learning_rate: float
    simple_steps: int
    generator_simple_steps: int
    answer_steps: int
    first: int
    steps: int
    questions: int
    answers: int
    filter_steps: int
    filter_questions: int
    absent: float


@dataclass(frozen=True)
class Jade:
    """The study of generated questions and dense captions."""

    data: JadeData
