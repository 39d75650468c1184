"""dvc.yaml as typed stages: the one place where notebook, inputs, parameters and outputs of a stage are declared."""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlib import config
from mmlib.errors import UserError

DETERMINISM = ("bitwise", "tolerance", "free")


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml; paths are relative to the root."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    metrics: tuple[str, ...]
    determinism: str
    timeout: int  # seconds for the whole notebook

    @property
    def notebook(self) -> str | None:
        """The source notebook: the only .ipynb among the dependencies."""
        return next((dep for dep in self.deps if dep.endswith(".ipynb")), None)

    @property
    def executed(self) -> str | None:
        """Where the normalised executed copy goes: the only .ipynb among the outputs."""
        return next((out for out in self.outs if out.endswith(".ipynb")), None)

    @property
    def products(self) -> tuple[str, ...]:
        """What the notebook itself must write: every output and metric but the executed copy."""
        return tuple(out for out in (*self.outs, *self.metrics) if out != self.executed)


def load(root: Path) -> dict[str, Stage]:
    """All stages by name, in file order.

    Raises:
        UserError: a stage with several notebooks, or without a determinism level.
    """
    raw = config.read_yaml(root / "dvc.yaml")["stages"]
    return {name: _stage(name, entry) for name, entry in raw.items()}


def get(root: Path, name: str) -> Stage:
    """One stage; an unknown name lists the known ones, the closest first."""
    known = load(root)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
        rest = [other for other in known if other not in close]
        raise UserError(f"unknown stage `{name}`", f"choose one of: {', '.join([*close, *rest])}")
    return known[name]


def in_order(root: Path, names: Iterable[str]) -> list[str]:
    """The named stages, each after those of them that make its inputs.

    Raises:
        UserError: an unknown stage.
    """
    chosen = [get(root, name) for name in names]
    maker = {out: stage.name for stage in chosen for out in (*stage.outs, *stage.metrics)}
    needs = {stage.name: [maker[dep] for dep in stage.deps if dep in maker] for stage in chosen}
    return list(graphlib.TopologicalSorter(needs).static_order())


def readers_last(root: Path, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The named stages in two parts: what others read (with all that the second part reads), what nobody reads.

    Stages of the second part depend on none of it, so that any number of them may run at once.
    """
    known = load(root)
    maker = {out: stage.name for stage in known.values() for out in (*stage.outs, *stage.metrics)}
    read = {maker[dep] for stage in known.values() for dep in stage.deps if dep in maker}
    last = [name for name in names if name not in read]
    needed = {maker[dep] for name in last for dep in known[name].deps if dep in maker}
    return [name for name in known if name in needed or (name in set(names) and name in read)], last


def parameters(stage: Stage, root: Path) -> dict[str, Any]:
    """The stage's parameters by name: the keys of each section it lists, or the last part of a single key."""
    found: dict[str, Any] = {}
    for dotted in stage.params:
        value = config.values(dotted, root)
        pairs = value if isinstance(value, dict) else {dotted.split(".")[-1]: value}
        for name, item in pairs.items():
            if name in found:
                raise UserError(f"stage {stage.name}: two parameters are called `{name}`", "rename one in params.yaml")
            found[name] = item
    return found


def _paths(entries: list[Any] | None) -> tuple[str, ...]:
    return tuple(entry if isinstance(entry, str) else next(iter(entry)) for entry in entries or [])


def _stage(name: str, entry: dict[str, Any]) -> Stage:
    meta = entry.get("meta", {})
    if meta.get("determinism") not in DETERMINISM:
        raise UserError(f"dvc.yaml: stage {name} declares no determinism", "add meta: {determinism: bitwise}")
    deps, outs = _paths(entry.get("deps")), _paths(entry.get("outs"))
    for kind, paths in (("deps", deps), ("outs", outs)):
        if sum(path.endswith(".ipynb") for path in paths) > 1:
            raise UserError(f"dvc.yaml: stage {name} has several notebooks in {kind}", "one stage runs one notebook")
    return Stage(name, entry["cmd"], deps, _paths(entry.get("params")), outs, _paths(entry.get("metrics")),
                 meta["determinism"], int(meta.get("timeout", 600)))  # fmt: skip
