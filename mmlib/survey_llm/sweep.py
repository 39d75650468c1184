"""The stage that trains byte models: shards of the scaling sweep (L1) and of the position schemes (L5)."""

from __future__ import annotations

from typing import Any

from mmlib.survey_llm import positions, scaling


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One size and seed on every amount of data, or one position scheme and seed."""
    return (positions.run if "scheme" in shard else scaling.run)(shard)
