"""Pins: exact, the same on every route, complete for what the code imports, and distilled per concern."""

from __future__ import annotations

import ast
import re
import sys

import pytest

from mmlib import environment
from mmlib.config import read_yaml
from mmlib.errors import UserError

IMPORT_NAMES = {
    "IPython": "ipykernel", "PIL": "pillow", "if_verifiable": "if-verifiable", "lm_eval": "lm-eval",
    "ruamel": "ruamel-yaml", "resvg_py": "resvg-py", "tokenizers": "transformers",
}  # fmt: skip
TOOLS = {"accelerate", "bitsandbytes", "dvc", "gguf", "ipykernel", "jupyterlab"}


def test_conda_route_has_the_same_pins(root):
    conda = read_yaml(root / "environment.yml")["dependencies"][-1]["pip"]
    lines = [line for line in (root / "requirements.lock").read_text().splitlines() if "==" in line]
    assert [pin for pin in conda if pin != "-e ."] == lines


def test_torch_is_pinned_without_a_build_tag(root):
    assert environment.pins(root)["torch"] == "2.13.0"
    assert not any("+" in version for version in environment.pins(root).values())


def declared(root):
    text = (root / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M)[1]
    return {re.sub(r"[-_.]+", "-", name) for name in re.findall(r'"([^"]+)"', block)}


def imported(root):
    found = set()
    for path in (root / "mmlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    found -= {"mmlib", "__future__", *sys.stdlib_module_names}
    return {IMPORT_NAMES.get(name, name) for name in found}


def test_declared_dependencies_are_pinned_and_what_the_code_imports(root):
    assert imported(root) <= declared(root) <= environment.pins(root).keys()
    unused = declared(root) - imported(root) - TOOLS
    assert not unused, f"declared but never imported: {unused}"


def test_distilled_files_follow_their_packages_only(root, tmp_path):
    lock = (root / "requirements.lock").read_text()

    def distil(text):
        (tmp_path / "requirements.lock").write_text(text)
        environment.distil(tmp_path)
        return {p.name: p.read_text() for p in (tmp_path / "results/env").iterdir()}

    before = distil(lock)
    assert before.keys() == {f"{group}.txt" for group in environment.GROUPS}
    assert distil(lock + "some-linter==1.0\n") == before
    changed = distil(lock.replace("bitsandbytes==", "bitsandbytes==9"))
    assert changed["core.txt"] == before["core.txt"] and changed["quantization.txt"] != before["quantization.txt"]


@pytest.mark.parametrize("line", ["numpy>=2", "numpy", "git+https://example.org/x"])
def test_a_loose_pin_is_refused(tmp_path, line):
    (tmp_path / "requirements.lock").write_text(line + "\n")
    with pytest.raises(UserError, match="not an exact pin"):
        environment.pins(tmp_path)
