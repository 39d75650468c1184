"""A miniature project for tests of the runner: one notebook stage, made in a temporary folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

NAME = "demo-stage"


def cell(kind: str, text: str, *tags: str, identity: str = "") -> dict:
    made = {"cell_type": kind, "id": identity or f"c{abs(hash(text)) % 10**8}", "metadata": {}, "source": text}
    if tags:
        made["metadata"] = {"tags": list(tags)}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def notebook(*body: str, parameters: str = "layers = 30", last: str = f'complete("{NAME}")') -> dict:
    cells = [cell("markdown", "# Title", identity="title"), cell("code", parameters, "parameters", identity="params")]
    cells += [cell("code", text, identity=f"body{i}") for i, text in enumerate(body)]
    cells.append(cell("code", f"from mmlib.runner import complete\n\n{last}", identity="last"))
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


WRITE = 'from mmlib import store\n\nstore.write_json("results/demo/x.json", {"layers": layers})'


def project(root: Path, here: Path, made: dict, params: str = "lm.layers", timeout: int = 60) -> Path:
    """Write the project; the library itself is linked, not copied."""
    here.mkdir(parents=True, exist_ok=True)
    (here / "mmlib").symlink_to(root / "mmlib")
    shutil.copy(root / "params.yaml", here)
    (here / "notebooks/demo").mkdir(parents=True)
    write(here, made)
    (here / "dvc.yaml").write_text(
        f"stages:\n  {NAME}:\n    cmd: python -m mmlib run {NAME}\n    deps: [notebooks/demo/01_demo.ipynb]\n"
        f"    params: [{params}]\n    outs: [results/demo/x.json, results/demo/01_demo.ipynb]\n"
        f"    meta: {{determinism: bitwise, timeout: {timeout}}}\n"
    )
    return here


def write(here: Path, made: dict) -> None:
    from mmlib import notebooks, store

    normal = json.loads(json.dumps(made))
    for one in normal["cells"]:
        one["source"] = one["source"].splitlines(keepends=True)
    store.atomic_write(here / "notebooks/demo/01_demo.ipynb", notebooks.canonical(normal))
