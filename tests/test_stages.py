"""dvc.yaml as typed stages."""

from __future__ import annotations

import pytest

from mmlib import stages
from mmlib.errors import UserError


def write(tmp_path, text):
    (tmp_path / "dvc.yaml").write_text("stages:\n  a:\n    cmd: python -m mmlib run a\n" + text)
    return tmp_path


def test_entries_with_options_are_read_as_paths(tmp_path):
    text = """\
    deps: [notebooks/a.ipynb, mmlib/x.py]
    outs: [results/a.json, results/a.ipynb]
    metrics: [{results/m.json: {cache: false}}]
    meta: {determinism: free, timeout: 7}
"""
    stage = stages.load(write(tmp_path, text))["a"]
    assert (stage.notebook, stage.executed) == ("notebooks/a.ipynb", "results/a.ipynb")
    assert stage.products == ("results/a.json", "results/m.json") and (stage.determinism, stage.timeout) == ("free", 7)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("    deps: [x]\n", "declares no determinism"),
        ("    meta: {determinism: maybe}\n", "declares no determinism"),
        ("    deps: [a.ipynb, b.ipynb]\n    meta: {determinism: free}\n", "several notebooks in deps"),
    ],
)
def test_faults_are_named(tmp_path, text, named):
    with pytest.raises(UserError, match=named):
        stages.load(write(tmp_path, text))


def test_parameters_of_a_section_and_of_a_leaf(root):
    known = stages.load(root)
    assert stages.parameters(known["lm"], root)["layers"] == 30
    assert stages.parameters(known["quantization-bits-report"], root) == {"shots": 5}


def test_stages_come_after_those_that_make_their_inputs(root):
    names = list(stages.load(root))
    order = stages.in_order(root, reversed(names))
    assert sorted(order) == sorted(names)
    pairs = (("world-clip", "world-llava"), ("quantization-verdicts", "ledger"), ("lm", "quantization-bits"))
    for before, after in pairs:
        assert order.index(before) < order.index(after)
    assert stages.in_order(root, ["quantization-bits-report", "quantization-bits"])[0] == "quantization-bits"
    with pytest.raises(UserError, match=r"unknown stage `quantization-bit`.*quantization-bits"):
        stages.in_order(root, ["quantization-bit"])


def test_what_nobody_reads_comes_last_after_all_that_it_reads(root):
    known = stages.load(root)
    names = [name for name in known if name.startswith("quantization-")]
    first, last = stages.readers_last(root, names)
    assert {"quantization-bits", "quantization-verdicts", "env"} <= set(first)
    assert "quantization-bits-report" in last and not set(first) & set(last) and set(names) <= {*first, *last}
    made = {out for name in last for out in (*known[name].outs, *known[name].metrics)}
    assert not [stage for stage in known.values() if made & set(stage.deps)]
    maker = {out: stage.name for stage in known.values() for out in (*stage.outs, *stage.metrics)}
    assert {maker[dep] for name in last for dep in known[name].deps if dep in maker} <= set(first)
    everything = stages.readers_last(root, known)
    assert sorted([*everything[0], *everything[1]]) == sorted(known)
