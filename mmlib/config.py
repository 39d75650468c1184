"""params.yaml and profiles -> frozen, typed settings. The only reader of either.

Plumbing: nothing here may change a number. YAML 1.2 throughout (ruamel), because DVC reads YAML 1.2
and PyYAML's 1.1 turns `1e-3` into text and `no` into False.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmlib.errors import UserError
from mmlib.schema.params import Params
from mmlib.schema.quantization import Bits as Bits  # for notebooks
from mmlib.store import project_root

PARAMS = "params.yaml"


def read_yaml(path: Path | str) -> Any:
    """Read one YAML 1.2 file; a syntax error names file and line, a duplicate key is an error."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(Path(path).read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing", "restore it with `git checkout`") from error
    except YAMLError as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not valid YAML: {detail}", "mend that line") from error


def load(root: Path | None = None) -> Params:
    """The validated settings of `root`; any unknown, missing or wrongly typed key is a UserError."""
    raw = read_yaml((root or project_root()) / PARAMS)
    return _build(Params, raw, PARAMS, "")


def values(dotted: str, root: Path | None = None) -> Any:
    """The value at `dotted` (for example `quantization.bits`) as plain dicts, lists and scalars."""
    node: Any = dataclasses.asdict(load(root))
    for key in dotted.split("."):
        if not isinstance(node, dict) or key not in node:
            raise UserError(f"no parameter `{dotted}` in {PARAMS}", "correct the stage's `params:` in dvc.yaml")
        node = node[key]
    return node


def profiles(root: Path) -> list[str]:
    """Names usable as PROFILE: the committed one and every overlay in profiles/."""
    committed = load(root).profile
    return [committed, *sorted(p.stem for p in (root / "profiles").glob("*.yaml") if p.stem != committed)]


def overlay(root: Path, profile: str) -> dict[str, Any]:
    """params.yaml with the overrides of profiles/<profile>.yaml laid over it, validated."""
    if profile not in profiles(root):
        raise UserError(f"unknown profile `{profile}`", f"choose one of: {', '.join(profiles(root))}")
    merged = read_yaml(root / PARAMS)
    path = root / "profiles" / f"{profile}.yaml"
    if path.exists():
        _merge(merged, read_yaml(path) or {}, path.relative_to(root).as_posix(), "")
    _build(Params, merged, f"{PARAMS} + profiles/{profile}.yaml", "")
    return merged


def _merge(base: dict[str, Any], extra: dict[str, Any], source: str, prefix: str) -> None:
    for key, value in extra.items():
        name = f"{prefix}{key}"
        if key not in base:
            raise UserError(f"{source}: unknown key `{name}`{_hint(key, base)}", f"use a key of {PARAMS}")
        if isinstance(base[key], dict) and isinstance(value, dict):
            _merge(base[key], value, source, f"{name}.")
        else:
            base[key] = value


def _hint(key: str, known: Any) -> str:
    close = difflib.get_close_matches(str(key), [str(k) for k in known], n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _build(cls: type, raw: Any, source: str, prefix: str) -> Any:
    if not isinstance(raw, dict):
        raise UserError(f"{source}: `{prefix.rstrip('.')}` must be a section", "indent its keys below it")
    hints = get_type_hints(cls)
    for key in raw:
        if key not in hints:
            raise UserError(f"{source}: unknown key `{prefix}{key}`{_hint(key, hints)}", "remove or correct it")
    for key in hints:
        if key not in raw:
            raise UserError(f"{source}: missing key `{prefix}{key}`", "add it (see mmlib/schema/)")
    return cls(**{key: _typed(hint, raw[key], source, prefix + key) for key, hint in hints.items()})


def _typed(hint: Any, value: Any, source: str, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, source, f"{name}.")
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise _wrong(name, source, f"one of {', '.join(map(str, get_args(hint)))}", value)
        return value
    if get_origin(hint) is list:
        if not isinstance(value, list) or not value:
            raise _wrong(name, source, "a list that is not empty", value)
        return [_typed(get_args(hint)[0], item, source, f"{name}[{i}]") for i, item in enumerate(value)]
    # `type(...) is`, not isinstance: bool is an int in Python, and 1 is not 1.0 to whoever typed it.
    if type(value) is not hint:
        raise _wrong(name, source, hint.__name__, value)
    return value


def _wrong(name: str, source: str, expected: str, value: Any) -> UserError:
    return UserError(f"{source}: `{name}` must be {expected}, got {type(value).__name__} {value!r}", "correct it")
