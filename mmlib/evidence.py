"""The evidence file: per-unit measurements of every arm, from which the ledger computes verdicts.

Kept in git, so that a clean clone can recompute every verdict without rerunning a study.
"""

from __future__ import annotations

from typing import Any

from mmlib.errors import UserError

SCHEMA = 1
DETERMINISTIC = "-"  # seed key of an arm without randomness: it pairs with every seed of the other arm


class Evidence:
    """Collects measurements and refuses what could not be paired later.

    >>> evidence = Evidence("demo", "demo-stage")
    >>> evidence.units("icl", ["capital/Japan", "capital/Peru"], asked=2)
    >>> evidence.metric("em", units="icl", higher_is_better=True, floor=0.0)
    >>> evidence.add("em", arm="16-bit", seed=None, values=[1, 0])
    """

    def __init__(self, study: str, stage: str) -> None:
        self._data: dict[str, Any] = {
            "schema": SCHEMA, "study": study, "stage": stage, "units": {}, "n_asked": {}, "metrics": {},
        }  # fmt: skip

    def units(self, kind: str, ids: list[str], *, asked: int) -> None:
        """Declare the resampling units of a kind; `asked` is how many the settings wanted."""
        if len(set(ids)) != len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            raise UserError(f"unit {twice} of `{kind}` appears twice", "remove the duplicate item")
        self._data["units"][kind] = list(ids)
        self._data["n_asked"][kind] = asked

    def metric(self, name: str, *, units: str, higher_is_better: bool, floor: float | None) -> None:
        """Declare a metric; `floor` is its chance level where there is one."""
        self._data["metrics"][name] = {
            "units": units, "higher_is_better": higher_is_better, "floor": floor, "values": {},
        }  # fmt: skip

    def add(self, metric: str, *, arm: str, seed: int | None, values: list[float]) -> None:
        """Values of one arm and seed, one per unit in the order of the units."""
        declared = self._data["metrics"][metric]
        expected = len(self._data["units"][declared["units"]])
        if len(values) != expected:
            raise UserError(f"{metric} of {arm} has {len(values)} values for {expected} units", "rerun the stage")
        seeds = declared["values"].setdefault(arm, {})
        key = DETERMINISTIC if seed is None else str(seed)
        if key in seeds:
            raise UserError(f"{metric} of {arm} seed {key} was added twice", "remove the duplicate variant")
        seeds[key] = [int(v) if v == int(v) and declared["floor"] is not None else v for v in values]

    def as_dict(self) -> dict[str, Any]:
        """The finished evidence, ready for `store.write_json`."""
        return self._data
