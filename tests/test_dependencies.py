"""A stage lists everything that can change its numbers: modules, data files, results. Proved from the source.

The best public example of DVC with papermill fails exactly here: a changed input reruns nothing.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from mmlib import pipeline, stages

# May not change a number, so no stage depends on it: an edit here must not cost hours.
PLUMBING = {"config", "errors", "notebooks", "plots", "runner", "schema", "stages", "store", "usage"}
COMMANDS = {"env": ["mmlib/environment.py"], "ledger": ["mmlib/ledger.py"], "verdicts": ["mmlib/judging.py"]}


def module_file(root: Path, dotted: str) -> Path | None:
    base = root / Path(*dotted.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def code_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def imports(root: Path, path: Path) -> set[Path]:
    found: set[Path] = set()
    for node in ast.walk(ast.parse(code_of(path))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        files = [module_file(root, name) for name in names if name.split(".")[0] == "mmlib"]
        found |= {file for file in files if file and file.name != "__init__.py"}
    return found


def closure(root: Path, start: Path) -> set[Path]:
    seen, todo = set(), [start]
    while todo:
        path = todo.pop()
        if path in seen or path.stem in PLUMBING:
            continue
        seen.add(path)
        todo.extend(imports(root, path))
    return seen


def side_files(root: Path, path: Path) -> set[Path]:
    """Files read from beside a module (`with_name("x.csv")`)."""
    return {path.with_name(name) for name in re.findall(r'with_name\("([^"]+)"\)', code_of(path))}


def literal_paths(path: Path) -> set[str]:
    """Every `data/…` or `results/…` path written in the code."""
    texts = [n.value for n in ast.walk(ast.parse(code_of(path))) if isinstance(n, ast.Constant)]
    return {t for t in texts if isinstance(t, str) and re.fullmatch(r"(data|results)/[\w./-]+", t)}


def covered(path: str, declared: list[str]) -> bool:
    return any(path == d or path.startswith(f"{d}/") or d.startswith(f"{path}/") for d in declared)


def undeclared(root: Path, stage) -> set[str]:
    """What the stage's code reaches and dvc.yaml does not list."""
    sources = [stage.notebook] if stage.notebook else COMMANDS[stage.name.rpartition("-")[2]]
    starts = [root / name for name in sources]
    files = set().union(*(closure(root, start) for start in starts))
    reached = {p.relative_to(root).as_posix() for file in files for p in {file, *side_files(root, file)}}
    declared = [*stage.deps, *stage.outs, *stage.metrics]
    paths = {text for file in files for text in literal_paths(file)}
    return {r for r in reached if r not in stage.deps} | {p for p in paths if not covered(p, declared)}


def all_stages():
    return list(stages.load(Path(__file__).resolve().parent.parent).values())


@pytest.mark.parametrize("stage", all_stages(), ids=lambda s: s.name)
def test_everything_a_stage_reaches_is_declared(root, stage):
    assert not undeclared(root, stage)


@pytest.mark.parametrize("stage", all_stages(), ids=lambda s: s.name)
def test_a_removed_dependency_trips_the_check(root, stage):
    import dataclasses

    sources = [dep for dep in stage.deps if dep.startswith("mmlib/")]
    assert sources
    for dep in sources:
        fewer = dataclasses.replace(stage, deps=tuple(d for d in stage.deps if d != dep))
        assert dep in undeclared(root, fewer), f"{dep} could be dropped unnoticed, or is not needed"


def test_every_dependency_exists_or_is_made_by_a_stage(root):
    made = {out for stage in all_stages() for out in (*stage.outs, *stage.metrics)}
    for stage in all_stages():
        for dep in stage.deps:
            assert (root / dep).exists() or dep.startswith("data/") or dep in made, f"{stage.name}: {dep}"


def before(stages_by_name, name):
    """A stage and all that DVC runs before it."""
    made = {out: other.name for other in stages_by_name.values() for out in (*other.outs, *other.metrics)}
    seen, todo = set(), [name]
    while todo:
        if (here := todo.pop()) not in seen:
            seen.add(here)
            todo += [made[dep] for dep in stages_by_name[here].deps if dep in made]
    return seen


def test_one_study_runs_without_the_others(root):
    known, judged = stages.load(root), {path.stem for path in (root / "claims").glob("*.yaml")}
    for study in judged:
        reached = set().union(*(before(known, name) for name in pipeline.study_stages(root, study)))
        others = {name for name in reached if name.partition("-")[0] in judged - {study}}
        assert f"{study}-verdicts" in reached and not others, f"{study} also runs {others}"


def test_package_fronts_import_nothing(root):
    """Importing any module runs its package's __init__: it must not pull in siblings."""
    for path in (root / "mmlib").rglob("__init__.py"):
        assert not imports(root, path), path


def test_every_stage_depends_on_the_pins_and_declares_its_determinism(root):
    for stage in all_stages():
        assert stage.name == "env" or "results/env/core.txt" in stage.deps
        assert stage.determinism in ("bitwise", "tolerance", "free")


def modules(root, name):
    """The files of one module of mmlib: itself, or everything in the package of that name."""
    single = root / f"mmlib/{name}.py"
    found = [single] if single.is_file() else sorted((root / "mmlib" / name).glob("*.py"))
    assert found, f"mmlib/{name} is gone"
    return found


def test_plumbing_computes_nothing(root):
    """Plumbing may not touch numeric libraries outside of drawing."""
    paths = [path for name in PLUMBING - {"plots"} for path in modules(root, name)]
    for path in paths:
        tops = {n.names[0].name if isinstance(n, ast.Import) else n.module for n in ast.walk(ast.parse(code_of(path)))
                if isinstance(n, ast.Import | ast.ImportFrom)}  # fmt: skip
        assert not {"torch", "numpy", "scipy", "transformers"} & {(t or "").split(".")[0] for t in tops}, path
