"""Canonical sources, normalised copies, and each rule of the house tripped once."""

from __future__ import annotations

import base64
import json

import pytest

from mmlib import notebooks, stages, store
from mmlib.errors import UserError
from tests import mini


def test_committed_notebooks_are_clean(root):
    assert notebooks.check(root) == []


def parsed(*body, **options):
    return json.loads(notebooks.canonical(mini.notebook(*body, **options)))


def test_canonical_is_idempotent_and_keeps_only_what_is_allowed():
    noisy = mini.notebook("x = 1   \n")
    noisy["metadata"] = {"kernelspec": {"name": "jax38"}, "widgets": {"state": 1}}
    noisy["cells"][2] |= {"execution_count": 7, "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}
    noisy["cells"][2]["metadata"] = {"execution": {"start": "now"}, "collapsed": True}
    clean = notebooks.canonical(noisy)
    assert clean == notebooks.canonical(json.loads(clean)) == notebooks.canonical(mini.notebook("x = 1"))


def test_duplicate_and_missing_ids_are_repaired_stably():
    twice = mini.notebook("x = 1", "y = 2")
    twice["cells"][3]["id"] = twice["cells"][2]["id"]
    del twice["cells"][0]["id"]
    ids = [cell["id"] for cell in json.loads(notebooks.canonical(twice))["cells"]]
    assert len(set(ids)) == len(ids) and notebooks.canonical(twice) == notebooks.canonical(twice)


@pytest.fixture
def home(root, tmp_path):
    def make(*body, **options):
        return mini.project(root, tmp_path / "p", mini.notebook(*body, **options))

    return make


@pytest.mark.parametrize(
    ("body", "options", "problem"),
    [
        (("class A:\n    pass",), {}, "class A belongs into mmlib"),
        (("def f():\n" + "    x = 1\n" * 15,), {}, "function f is over 15 lines"),
        (("\n".join(["x = 1"] * 26),), {}, "over 25 lines"),
        (("%matplotlib inline",), {}, "uses a magic"),
        ((), {"last": "pass"}, "does not call complete"),
        ((), {"parameters": "layers = 29"}, "parameter layers is 29 here and 30 in params.yaml"),
        ((), {"parameters": "layers = 30\nmore = 1"}, "parameter more is 1 here and 'absent'"),
    ],
)
def test_each_rule_trips(home, body, options, problem):
    found = notebooks.check(home(*body, **options))
    assert any(problem in line for line in found), found


def test_a_clean_notebook_has_no_problem_and_outputs_are_one(home):
    here = home("x = 1")
    assert notebooks.check(here) == []
    path = here / "notebooks/demo/01_demo.ipynb"
    path.write_text(path.read_text().replace('"execution_count": null', '"execution_count": 3', 1))
    assert notebooks.check(here) == ["notebooks/demo/01_demo.ipynb: is not in canonical form"]
    notebooks.fix(here)
    assert notebooks.check(here) == []


def test_an_orphan_notebook_is_a_problem(home):
    here = home("x = 1")
    (here / "notebooks/demo/02_orphan.ipynb").write_bytes((here / "notebooks/demo/01_demo.ipynb").read_bytes())
    assert any("belongs to no stage" in line for line in notebooks.check(here))


def run_with(outputs):
    made = parsed("x")
    made["cells"][2]["outputs"] = outputs
    return made


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def shown(outputs, root):
    return json.loads(notebooks.normalise(run_with(outputs), root))["cells"][2]["outputs"]


def test_normalise_drops_what_differs_between_runs(tmp_path):
    noisy = [
        stream("10%\r50%\r100%\n"),
        stream(f"<A at 0x7f12ab> {tmp_path}/x {tmp_path}-other\n"),
        stream("warning", "stderr"),
    ]
    (only,) = shown(noisy, tmp_path)
    assert "".join(only["text"]) == f"100%\n<A at 0x…> ./x {tmp_path}-other\n"
    rich = {"output_type": "display_data", "metadata": {"x": 1}, "data": {"image/png": "AAA\n", "widget/x": "1"}}
    assert shown([rich], tmp_path) == [{"output_type": "display_data", "metadata": {}, "data": {"image/png": ["AAA"]}}]


def test_the_injected_cell_gets_an_ordinal_id(tmp_path):
    made = parsed("x")
    made["cells"][2]["metadata"] = {"tags": ["injected-parameters"]}
    made["cells"][2]["id"] = "random"
    assert json.loads(notebooks.normalise(made, tmp_path))["cells"][2]["id"] == "injected-2"


def test_publish_copies_removes_the_stale_and_refuses_large_pictures(home):
    here = home("x = 1")
    stale = here / "reports/demo/99_gone.ipynb"
    store.atomic_write(stale, "{}")
    copy = here / stages.load(here)[mini.NAME].executed
    store.atomic_write(copy, notebooks.normalise(run_with([stream("hello")]), here))
    notebooks.publish(here)
    report, published = here / "reports/demo/01_demo.ipynb", copy.read_bytes()
    assert report.read_bytes() == published and not stale.exists()
    copy.unlink()  # as on a clone where another study alone was run
    notebooks.publish(here)
    assert report.read_bytes() == published
    picture = base64.b64encode(b"x" * 200_000).decode()
    data = {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}}
    store.atomic_write(copy, notebooks.normalise(run_with([data]), here))
    with pytest.raises(UserError, match="the picture of cell body0 has 200 kB"):
        notebooks.publish(here)


def test_parameter_cells_hold_literals_only():
    assert notebooks.parameter_defaults(parsed(parameters="a: int = 1\nb = [1, 'x=y']")) == {"a": 1, "b": [1, "x=y"]}
    with pytest.raises(UserError, match="more than `name = value`"):
        notebooks.parameter_defaults(parsed(parameters="import os"))
