"""The code that experiments share stays small, and no experiment reaches into another one."""

from __future__ import annotations

import ast
import json
import re

import pytest

from mmlib import survey_llm
from tests.code_lines import code_lines

STAGES = ("frozen", "tuning", "real")  # these know all experiments of their stage, and nothing else does
DISPATCH = {"positions": {"scaling"}}  # `positions.either` is their stage's: it chooses between the two, and no more
READING = {  # reading notebook -> the experiments that it is about
    "01": {"L2"}, "03": {"L1"}, "04": {"L5"}, "06": {"L4"}, "08": {"L6"}, "09": {"L3"}, "11": {"L10"}, "14": {"L7"},
    "15": {"L8"}, "16": {"L9"}, "18": {"L3"},
}  # fmt: skip


def reached(source: str) -> set[str]:
    """Modules of this study that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mmlib.survey_llm"):
            part = node.module.removeprefix("mmlib.survey_llm").lstrip(".")
            found |= {part} if part else {alias.name for alias in node.names}
    return found


def foreign(experiments: set[str], source: str) -> set[str]:
    """What is imported that belongs to another experiment, or to the stages."""
    return {
        name for name in reached(source) if name in STAGES or survey_llm.OWN.get(name, "") not in {"", *experiments}
    }


@pytest.fixture(scope="module")
def sources(root):
    return {path.stem: path.read_text() for path in (root / "mmlib/survey_llm").glob("[a-z]*.py")}


def test_shared_code_is_small_and_counted(sources):
    assert sources.keys() == {*survey_llm.SHARED, *survey_llm.OWN}, "every module is shared or one experiment's own"
    shared, own = (sum(code_lines(sources[name]) for name in names) for names in (survey_llm.SHARED, survey_llm.OWN))
    assert shared <= survey_llm.SHARED_LIMIT
    printed = [int(number) for number in re.findall(r"(\d+) lines", survey_llm.__doc__)]
    assert printed == [shared, own]


def test_counting():
    source = '"""Says\nmuch."""\n\nx = 1  # one\n# two\n\n\ndef f():\n    """Doc."""\n'
    source += '    return """not\n    a docstring"""\n'
    assert code_lines(source) == 4


def test_no_experiment_reaches_into_another(root, sources):
    for name, experiment in survey_llm.OWN.items():
        assert not foreign({experiment}, sources[name]) - DISPATCH.get(name, set()), name
    for name in set(survey_llm.SHARED) - set(STAGES):
        assert not foreign(set(), sources[name]), name
    for path in (root / "notebooks/survey_llm").glob("*.ipynb"):
        if experiments := READING.get(path.name[:2]):
            cells = json.loads(path.read_text())["cells"]
            code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            assert not foreign(experiments, code), path.name


def test_a_planted_import_of_another_experiment_trips():
    assert foreign({"L4"}, "from mmlib.survey_llm.parity import problems") == set()
    assert foreign({"L5"}, "def f():\n    from mmlib.survey_llm import parity, training") == {"parity"}
    assert foreign({"L5"}, "from mmlib.survey_llm.frozen import run") == {"frozen"}
