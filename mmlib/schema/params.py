"""The whole of params.yaml: a section per study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmlib.schema.jade import Jade
from mmlib.schema.quantization import LanguageModel, Quantization
from mmlib.schema.survey_llm import SurveyLlm
from mmlib.schema.survey_vlp import SurveyVlp
from mmlib.schema.tive import Redundancy, Tive
from mmlib.schema.vlab import VlabStudy
from mmlib.schema.world import World


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
    vlab: VlabStudy
    jade: Jade
