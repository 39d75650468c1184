"""Length extrapolation by position scheme (sections 4.2.2 and 9.1): train on short windows, test on longer ones.

The same last bytes are predicted from a short and from a long context, so a scheme that extrapolates loses nothing
(and may gain), and one that does not loses on targets that it could predict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.evidence import Evidence
from mmlib.survey_llm import scaling, training

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mmlib.survey_llm.transformer import Decoder

FACTOR = 4  # the test context is so many times the training window
TARGETS = 32  # last bytes of a window, which carry the score
# What is changed at test time only: name -> options of the model.
REPAIRS = {
    "rope-interpolated": {"scale": 1 / FACTOR},
    "rope-base-1000": {"base": 1_000.0},
    "rope-base-100000": {"base": 100_000.0},
}


def tail_loss(model: Decoder, rows: Tensor, length: int, **options: float) -> np.ndarray:
    """Mean nats of the last TARGETS bytes of each row given the `length` bytes before the last one, (R,)."""
    return training.nats(model, rows[:, -length - 1 :], TARGETS, **options).mean(1).numpy()


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """Train one scheme; loss per window at the training length and at FACTOR times it, repairs included."""
    import torch

    from mmlib.survey_llm.transformer import Decoder, Shape

    torch.set_num_threads(1)
    settings, seed, scheme = shard["settings"], shard["seed"], shard["scheme"]
    source, test = training.byte_text(store.project_root())
    length = training.LENGTH
    model = Decoder(Shape(width=settings["position_width"], layers=settings["layers"], head=8, positions=scheme), seed)
    options = {"batch": settings["batch"], "learning_rate": settings["learning_rate"], "seed": seed}
    training.read(model, source, settings["position_bytes"], **options)
    rows = training.windows(test, settings["test_windows"], FACTOR * length, seed=1)
    repairs = {scheme: {}} | (REPAIRS if scheme == "rope" else {})
    losses = {
        f"{name}/{size}": [round(float(v), 5) for v in tail_loss(model, rows, size, **changes)]
        for name, changes in repairs.items()
        for size in (length, FACTOR * length)
    }
    return {"scheme": scheme, "seed": seed, "losses": losses}


def shards(schemes: list[str], seeds: list[int], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One shard per scheme and seed."""
    return [
        {"name": f"{scheme}/seed{seed}", "scheme": scheme, "seed": seed, "settings": settings}
        for scheme in schemes
        for seed in seeds
    ]


def either(shard: dict[str, Any]) -> dict[str, Any]:
    """A shard of the stage that trains byte models: of the scaling sweep or of the position schemes."""
    return (run if "scheme" in shard else scaling.run)(shard)


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Nats per byte of every arm `scheme/context`, per window."""
    evidence = Evidence("survey_llm", "survey_llm-bytes")
    count = settings["test_windows"]
    evidence.units("window", [f"window/{i}" for i in range(count)], asked=count)
    evidence.metric("nll", units="window", higher_is_better=False, floor=None)
    for result in results:
        for arm, values in result["losses"].items():
            evidence.add("nll", arm=arm, seed=result["seed"], values=values)
    return evidence.as_dict()
