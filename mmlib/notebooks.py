"""Notebook hygiene: one canonical form for sources, one normalised form for executed copies.

Both keep by allow-list: what is not named here is dropped, so a new tool's metadata cannot slip in.
"""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path
from typing import Any

from mmlib import stages, store
from mmlib.errors import UserError

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
          "language_info": {"name": "python"}}  # fmt: skip
MIMES = ("image/png", "image/svg+xml", "text/html", "text/latex", "text/markdown", "text/plain")
LONGEST_CELL, LONGEST_FUNCTION, LARGEST_IMAGE = 25, 15, 150_000
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
Notebook = dict[str, Any]


def read(path: Path) -> Notebook:
    """Parse a notebook; one that is not JSON is named."""
    notebook = store.read_json(path)
    if not isinstance(notebook, dict) or "cells" not in notebook:
        raise UserError(f"{path} is not a notebook", "restore it with `git checkout`")
    return notebook


def source(cell: dict[str, Any]) -> str:
    """A cell's text."""
    return "".join(cell["source"])


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """The code cells."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _dump(cells: list[dict[str, Any]]) -> bytes:
    notebook = {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _cell(cell: dict[str, Any], identity: str, tags: list[str]) -> dict[str, Any]:
    text = "\n".join(line.rstrip() for line in source(cell).rstrip().split("\n"))
    kept = {"cell_type": cell["cell_type"], "id": identity, "metadata": {"tags": tags} if tags else {},
            "source": text.splitlines(keepends=True)}  # fmt: skip
    return kept | ({"execution_count": None, "outputs": []} if cell["cell_type"] == "code" else {})


def canonical(notebook: Notebook) -> bytes:
    """The committed form of a source: no outputs, tags only, stable ids, one byte layout."""
    cells, seen = [], set()
    for number, cell in enumerate(notebook["cells"]):
        identity = cell.get("id") or f"cell-{number}"
        while identity in seen:  # a copied cell brings its id along
            identity += "x"
        seen.add(identity)
        cells.append(_cell(cell, identity, sorted(cell["metadata"].get("tags", []))))
    return _dump(cells)


def normalise(notebook: Notebook, root: Path) -> bytes:
    """The kept form of an executed copy: a rerun with equal results gives equal bytes."""
    cells, count = [], 0
    for number, cell in enumerate(notebook["cells"]):
        tags = [t for t in cell["metadata"].get("tags", []) if t in ("parameters", "injected-parameters")]
        injected = "injected-parameters" in tags  # papermill gives this cell a random id
        kept = _cell(cell, f"injected-{number}" if injected else cell["id"], tags)
        if cell["cell_type"] == "code":
            count += 1
            kept |= {"execution_count": count, "outputs": _outputs(cell.get("outputs", []), count, root)}
        cells.append(kept)
    return _dump(cells)


def _outputs(outputs: list[dict[str, Any]], count: int, root: Path) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            if output["name"] == "stderr":
                continue  # progress bars and warnings: different every time, and in the log
            text = _clean("".join(output["text"]), root)
            if kept and kept[-1]["output_type"] == "stream":
                text = "".join(kept.pop()["text"]) + text
            kept.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
        elif kind in ("display_data", "execute_result"):
            data = {mime: _mime(mime, output["data"][mime], root) for mime in MIMES if mime in output["data"]}
            result = {"execution_count": count} if kind == "execute_result" else {}
            kept.append({"output_type": kind, "data": data, "metadata": {}, **result})
        else:
            kept.append(output)
    return kept


def _mime(mime: str, value: str | list[str], root: Path) -> list[str]:
    text = "".join(value)
    cleaned = text.strip() if mime.startswith("image/png") else _clean(text, root)
    return cleaned.splitlines(keepends=True)


def _clean(text: str, root: Path) -> str:
    """Without addresses, the paths of this machine, and all but the last state of an overwritten line."""
    text = "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))
    for path, name in ((str(root), "."), (str(Path.home()), "~")):
        text = re.sub(re.escape(path) + r"(?![\w-])", name, text)
    return ADDRESS.sub("at 0x…", text)


def check(root: Path) -> list[str]:
    """Everything that is wrong with the source notebooks, one line each."""
    used = {stage.notebook: stage for stage in stages.load(root).values() if stage.notebook}
    problems = []
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        name = path.relative_to(root).as_posix()
        notebook = read(path)
        found = [] if path.read_bytes() == canonical(notebook) else ["is not in canonical form"]
        found += _structure(notebook)
        if name in used:
            found += _against_stage(notebook, used[name], root)
        else:
            found.append("belongs to no stage of dvc.yaml")
        problems += [f"{name}: {problem}" for problem in found]
    return problems


def fix(root: Path) -> None:
    """Rewrite every source notebook in canonical form."""
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        store.atomic_write(path, canonical(read(path)))


def _structure(notebook: Notebook) -> list[str]:
    problems, cells = [], code_cells(notebook)
    first = notebook["cells"][0]
    if first["cell_type"] != "markdown" or not source(first).startswith("# "):
        problems.append("the first cell is not a title")
    if sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) != 1:
        problems.append("needs exactly one cell tagged `parameters`")
    for cell in cells:
        text = source(cell)
        if len(text.splitlines()) > LONGEST_CELL:
            problems.append(f"cell {cell.get('id')} has over {LONGEST_CELL} lines")
        if re.search(r"^\s*[%!]", text, re.MULTILINE):
            problems.append(f"cell {cell.get('id')} uses a magic; write Python")
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                problems.append(f"class {node.name} belongs into mmlib")
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= LONGEST_FUNCTION:
                problems.append(f"function {node.name} is over {LONGEST_FUNCTION} lines; it belongs into mmlib")
    return problems


def _against_stage(notebook: Notebook, stage: stages.Stage, root: Path) -> list[str]:
    problems = []
    if f'complete("{stage.name}")' not in source(code_cells(notebook)[-1]) and "complete(stage)" not in source(
        code_cells(notebook)[-1]
    ):
        problems.append(f'the last code cell does not call complete("{stage.name}")')
    defaults, wanted = parameter_defaults(notebook), stages.parameters(stage, root)
    for name in sorted(defaults.keys() | wanted.keys()):
        if name not in wanted or name not in defaults or defaults[name] != wanted[name]:
            here = defaults.get(name, "absent")
            problems.append(f"parameter {name} is {here!r} here and {wanted.get(name, 'absent')!r} in params.yaml")
    return problems


def parameter_defaults(notebook: Notebook) -> dict[str, Any]:
    """Names and literal values of the cell tagged `parameters`."""
    cells = [cell for cell in code_cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise UserError(f"{len(cells)} cells are tagged `parameters`", "tag exactly one")
    found = {}
    for node in ast.parse(source(cells[0])).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(target, ast.Name) or node.value is None:
            raise UserError("the parameters cell holds more than `name = value`", "move it to another cell")
        found[target.id] = ast.literal_eval(node.value)
    return found


def publish(root: Path) -> None:
    """Copy executed notebooks to reports/<study>/; remove reports of notebooks that are gone."""
    kept = set()
    for stage in stages.load(root).values():
        if not stage.executed:
            continue
        target = root / stage.notebook.replace("notebooks/", "reports/", 1)
        kept.add(target)  # also where another study was run, and this one's executed copy is not here
        if not (root / stage.executed).is_file():
            continue
        data = (root / stage.executed).read_bytes()
        _refuse_large_images(json.loads(data), stage.executed)
        if not target.is_file() or target.read_bytes() != data:
            store.atomic_write(target, data)
    for stale in set((root / "reports").rglob("*.ipynb")) - kept:
        stale.unlink()


def _refuse_large_images(notebook: Notebook, name: str) -> None:
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            size = len(base64.b64decode("".join(output.get("data", {}).get("image/png", ""))))
            if size > LARGEST_IMAGE:
                culprit = f"{name}: the picture of cell {cell['id']} has {size // 1000} kB"
                raise UserError(culprit, f"draw it smaller or at a lower dpi: at most {LARGEST_IMAGE // 1000} kB")
