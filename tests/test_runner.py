"""The runner under every fault that papermill lets through: each is refused, named, and leaves no half result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mmlib import runner, stages, store
from mmlib.errors import UserError
from tests import mini

pytestmark = pytest.mark.slow


@pytest.fixture
def make(root, tmp_path, monkeypatch):
    def make(*body, name="project", **options):
        params = {key: options.pop(key) for key in ("params", "timeout") if key in options}
        here = mini.project(root, tmp_path / name, mini.notebook(*body, **options), **params)
        monkeypatch.chdir(here)
        return here

    return make


def result(here):
    return store.read_json(here / "results/demo/x.json")


def executed(here):
    return (here / "results/demo/01_demo.ipynb").read_bytes()


def kernels():
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return {line.split()[0] for line in listing.splitlines() if "mmlib.kernel" in line and "defunct" not in line}


NOISE = """\
import time
from matplotlib import pyplot as plt
from tqdm import tqdm

for _ in tqdm(range(3)):
    time.sleep(0.01)
print(object())
print(time.time() > 0, store.project_root())
plt.plot([1, 2])
plt.show()"""


def test_two_runs_are_byte_identical_in_a_folder_with_a_space(make):
    here = make(mini.WRITE, NOISE, name="with a space")
    runner.run(mini.NAME, here)
    first = executed(here), result(here)
    time.sleep(0.1)
    runner.run(mini.NAME, here)
    assert (executed(here), result(here)) == first
    text = first[0].decode()
    assert "image/png" in text and "at 0x…" in text and str(here) not in text and "papermill" not in text
    assert '"stderr"' not in text, "progress bars belong into the log"


@pytest.mark.parametrize("script", [False, True])
def test_typed_values_arrive_typed(make, root, script):
    section = "\n".join(f"{key} = {value!r}" for key, value in
                        stages.parameters(stages.load(root)["quantization-bits"], root).items())  # fmt: skip
    check = (
        "assert act_order is False and type(damping) is float and damping == 0.001\nassert widths == [8, 4]\n"
        'store.write_json("results/demo/x.json", {"layers": [act_order, damping, widths]})'
    )
    here = make("from mmlib import store", check, parameters=section, params="quantization.bits")
    text = (here / "params.yaml").read_text()
    text = text.replace("act_order: true", "act_order: false").replace("damping: 0.01", "damping: 1e-3")
    (here / "params.yaml").write_text(text.replace("widths: [8, 4, 3, 2]", "widths: [8, 4]"))
    runner.run(mini.NAME, here, script=script)
    assert result(here) == {"layers": [False, 0.001, [8, 4]]}


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ("layers = 30\nextra = 1", "parameter `extra` is missing in the stage's"),
        ("other = 30", "parameter `layers` is missing in the notebook's"),
        ("layers = 30.0", "parameter `layers` is int in params.yaml, float in the notebook"),
        ("layers = True", "parameter `layers` is int in params.yaml, bool in the notebook"),
    ],
)
def test_parameters_that_do_not_fit_are_named_before_anything_runs(make, parameters, named):
    here = make(mini.WRITE, parameters=parameters)
    with pytest.raises(UserError, match=named):
        runner.run(mini.NAME, here)
    assert not (here / "results").exists()


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize(
    ("body", "options", "named"),
    [
        (("import sys\n\nsys.exit(0)",), {}, "ended before its last cell"),
        ((), {"last": "pass"}, "ended before its last cell"),
        ((), {"last": 'complete("other-stage")'}, "unknown stage `other-stage`|calls complete"),
        ((), {"last": f'complete("{mini.NAME}")\nstore.write_json("results/demo/x.json", {{}})'}, "changed after"),
    ],
)
def test_an_incomplete_notebook_is_refused_and_leaves_no_output(make, body, options, named, script):
    if script and "unknown stage" in named:
        pytest.skip("a script raises the same error itself")
    here = make(mini.WRITE, *body, **options)
    with pytest.raises(UserError, match=named):
        runner.run(mini.NAME, here, script=script)
    assert not (here / "results/demo/x.json").exists() and not (here / "results/demo/01_demo.ipynb").exists()


def test_a_failing_cell_is_named_and_its_metrics_are_removed(make):
    here = make(mini.WRITE, "raise ValueError('boom')")
    with pytest.raises(UserError, match=r"01_demo\.ipynb, cell \d+: ValueError: boom.*raw\.ipynb"):
        runner.run(mini.NAME, here)
    assert not (here / "results/demo/x.json").exists()
    assert "boom" in (here / ".scratch/runs" / mini.NAME / "raw.ipynb").read_text()


def test_a_user_error_inside_a_notebook_stays_one_line(make):
    text = 'from mmlib.errors import UserError\n\nraise UserError("wheel x is missing", "run fetch")'
    here = make(mini.WRITE, text)
    with pytest.raises(UserError) as error:
        runner.run(mini.NAME, here)
    assert str(error.value) == "notebooks/demo/01_demo.ipynb: wheel x is missing; run fetch"


def test_a_missing_output_is_named(make):
    here = make("x = 1")
    with pytest.raises(UserError, match=r"did not write x\.json"):
        runner.run(mini.NAME, here)


def test_a_hang_ends_at_the_time_limit_and_leaves_no_kernel(make):
    before = kernels()
    here = make(mini.WRITE, "import time\n\ntime.sleep(100)", timeout=4)
    with pytest.raises(UserError, match="a cell ran over 4 s"):
        runner.run(mini.NAME, here)
    time.sleep(2)
    assert kernels() <= before and not (here / "results/demo/x.json").exists()


def test_a_killed_kernel_is_named(make):
    here = make(mini.WRITE, "import os, signal\n\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(UserError, match="its kernel died"):
        runner.run(mini.NAME, here)
    assert not (here / "results/demo/x.json").exists()


def test_kill_9_of_the_runner_leaves_no_orphan_kernel(make):
    before = kernels()
    here = make(mini.WRITE, "import pathlib, time\n\npathlib.Path('started').touch()\ntime.sleep(100)")
    job = subprocess.Popen([sys.executable, "-m", "mmlib", "run", mini.NAME], cwd=here,
                           env={**os.environ, "PYTHONPATH": str(here), "SHELL": "/bin/false"})  # fmt: skip
    deadline = time.time() + 60
    while not (here / "started").exists() and time.time() < deadline:
        time.sleep(0.1)
    assert kernels() - before, "the test must have seen the kernel alive"
    job.send_signal(signal.SIGKILL)
    job.wait()
    time.sleep(5)
    assert kernels() <= before
    assert not (here / "results/demo/01_demo.ipynb").exists()


def test_a_missing_input_names_the_command(make):
    here = make(mini.WRITE)
    text = (here / "dvc.yaml").read_text()
    (here / "dvc.yaml").write_text(text.replace("01_demo.ipynb]\n    params", "01_demo.ipynb, data/text]\n    params"))
    with pytest.raises(UserError, match="needs data/text, which is missing; run `python -m mmlib fetch`"):
        runner.run(mini.NAME, here)


def test_unknown_and_notebookless_stages_are_named(root):
    with pytest.raises(UserError, match="unknown stage `quantization-bit`; choose one of: quantization-bits,"):
        runner.run("quantization-bit", root)
    with pytest.raises(UserError, match="stage env runs no notebook; run it with `python -m mmlib env`"):
        runner.run("env", root)


def test_complete_by_hand_only_checks(make, capsys):
    here = make(mini.WRITE)
    with pytest.raises(UserError, match=r"did not write x\.json"):
        runner.complete(mini.NAME)
    store.write_json(here / "results/demo/x.json", {})
    runner.complete(mini.NAME)
    assert "results/demo/x.json" in capsys.readouterr().out


def test_resumable_work_goes_with_success_and_stays_with_failure(make):
    here = make(mini.WRITE, "raise ValueError")
    kept = here / ".scratch/shards" / mini.NAME / "one.json"
    store.write_json(kept, {})
    with pytest.raises(UserError):
        runner.run(mini.NAME, here)
    assert kept.exists()
    mini.write(here, mini.notebook(mini.WRITE))
    runner.run(mini.NAME, here)
    assert not kept.exists()
    assert json.loads((here / ".scratch/runs" / mini.NAME / "run.json").read_text())["seconds"] > 0
