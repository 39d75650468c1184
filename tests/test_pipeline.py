"""The true entry point, tiny: the whole pipeline at the smoke profile, in a scratch copy, under faults.

One study goes the users' way, through DVC and Jupyter. The other notebooks run as scripts in one process: starting a
kernel and importing torch, papermill and matplotlib sixty times over would take longer than all they compute.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mmlib import config, stages, store
from mmlib.pipeline import SCRATCH

# The first test waits for the whole pipeline: more than the limit of a single test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
STUDY = "quantization"
STAGE, TUNED = "quantization-bits", "quantization-lm-compensation"
OUTPUTS = ("bits.json", "evidence_bits.json", "01_bits_compute.ipynb")


def command(root, *arguments, cwd=None, **environment):
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd or root, capture_output=True, text=True,
        env={**os.environ, "PATH": path, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def tracked_state(root):
    diff = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True).stdout
    hashes = subprocess.run(["git", "diff"], cwd=root, capture_output=True, text=True).stdout
    return diff, hashes


@pytest.fixture(scope="module")
def smoke(root):
    before = tracked_state(root)
    code, log = command(root, "mmlib", "reproduce", "--profile", "smoke", "--study", STUDY)
    assert code == 0, log[-3000:]
    assert tracked_state(root) == before, "the smoke profile touched a tracked file"
    copy = root / SCRATCH / "smoke"
    run_the_rest(copy)
    return copy


def recorded(copy):
    """Stages that DVC ran in the copy."""
    return set(config.read_yaml(copy / "dvc.lock")["stages"])


def run_the_rest(copy):
    """All other stages: what computes, then the verdicts, then what reads them."""
    rest = [stage for stage in stages.load(copy).values() if stage.name not in recorded(copy)]
    verdicts = {metric for stage in rest if not stage.notebook for metric in stage.metrics} | {"results/ledger.json"}
    reports = [stage.name for stage in rest if stage.notebook and verdicts & set(stage.deps)]
    computing = [stage.name for stage in rest if stage.notebook and stage.name not in reports]
    others = [stage.cmd.split()[2:] for stage in rest if not stage.notebook and stage.name != "ledger"]
    for arguments in (["mmlib", "run", "--script", *computing], *others, ["mmlib", "ledger", "--join"],
                      ["mmlib", "run", "--script", *reports]):  # fmt: skip
        code, log = command(copy, *arguments)
        assert code == 0, log[-3000:]


def outputs(copy):
    return {name: (copy / "results/quantization" / name).read_bytes() for name in OUTPUTS}


def test_every_stage_ran_and_reports_can_be_read(smoke):
    assert recorded(smoke) >= {name for name in stages.load(smoke) if name.startswith(STUDY)}
    for stage in stages.load(smoke).values():
        assert all((smoke / out).exists() for out in (*stage.outs, *stage.metrics)), stage.name
        if stage.notebook and stage.name in recorded(smoke):
            report = smoke / "reports" / stage.notebook.removeprefix("notebooks/")
            cells = json.loads(report.read_text())["cells"]
            assert any(cell.get("outputs") for cell in cells), f"{report} shows no output"
    assert all(row["profile"] == "smoke" for row in store.read_json(smoke / "results/ledger.json"))
    assert (smoke / "reports/LEDGER.md").is_file()


def test_a_reduced_profile_never_earns_a_positive_verdict(smoke):
    verdicts = {row["id"]: row["verdict"] for row in store.read_json(smoke / "results/ledger.json")}
    assert verdicts and not {"reproduced", "consistent-at-reduced-scale"} & set(verdicts.values()), verdicts


def test_the_second_run_does_nothing(root, smoke):
    started = time.time()
    code, log = command(root, "mmlib", "reproduce", "--profile", "smoke", "--study", STUDY)
    assert code == 0 and "Running stage" not in log, log[-2000:]
    print(f"no-op run: {time.time() - started:.1f} s")


def test_double_run_is_bitwise_equal_on_another_engine(smoke):
    before = outputs(smoke)
    code, log = command(smoke, "mmlib", "run", STAGE, MMLIB_ENGINE="serial")
    assert code == 0, log[-3000:]
    assert outputs(smoke) == before


def test_script_mode_gives_the_same_numbers_without_jupyter(smoke):
    before = outputs(smoke)
    code, log = command(smoke, "mmlib", "run", STAGE, "--script", MMLIB_ENGINE="serial")
    assert code == 0, log[-3000:]
    after = outputs(smoke)
    assert {n: after[n] for n in OUTPUTS[:2]} == {n: before[n] for n in OUTPUTS[:2]}
    (smoke / "results/quantization" / OUTPUTS[2]).write_bytes(before[OUTPUTS[2]])


def kernels(job):
    """Process ids below the runner that run a kernel."""
    import psutil

    children = psutil.Process(job.pid).children(recursive=True)
    return [p.pid for p in children if "mmlib.kernel" in p.cmdline()]


def test_kill_9_of_the_compute_kernel_then_resume_gives_the_same_result(smoke):
    before = outputs(smoke)
    shards = smoke / ".scratch/shards" / STAGE
    shutil.rmtree(shards, ignore_errors=True)
    environment = {**os.environ, "MMLIB_WORKERS": "1"}
    job = subprocess.Popen([sys.executable, "-m", "mmlib", "run", STAGE], cwd=smoke, env=environment,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    deadline = time.time() + 240
    while len(list(shards.glob("*.json"))) < 2 and time.time() < deadline and job.poll() is None:
        time.sleep(0.1)
    (kernel,) = kernels(job)
    os.kill(kernel, signal.SIGKILL)
    log, _ = job.communicate(timeout=60)
    finished = {path.name: path.stat().st_mtime_ns for path in shards.glob("*.json")}
    assert job.returncode != 0 and len(finished) >= 2, log[-2000:]

    code, log = command(smoke, "mmlib", "run", STAGE)
    assert code == 0, log[-3000:]
    assert f"{len(finished)} of" in log.replace("\r", "\n"), "the finished variants were computed again"
    assert outputs(smoke) == before


def changed_stages(copy):
    code, log = command(copy, "dvc", "status", "--json")
    assert code == 0, log
    return {name.split(":")[-1] for name in json.loads(log[log.index("{") :])} & recorded(copy)


def test_a_prose_edit_reruns_the_report_only(smoke):
    assert not changed_stages(smoke)
    path = smoke / "notebooks/quantization/02_bits_report.ipynb"
    original = path.read_bytes()
    try:
        path.write_bytes(original.replace(b"**Paper.**", b"**The paper.**", 1))
        assert changed_stages(smoke) == {"quantization-bits-report"}
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize(
    ("old", "new", "rerun"),
    [
        ("mapping_items: 2", "mapping_items: 1", {STAGE}),
        ("choices: 4", "choices: 3", {STAGE, "quantization-outliers", TUNED}),  # all rank candidates
        ("damping: 0.01", "damping: 0.02", {STAGE, "quantization-components", TUNED}),  # all calibrate with it
        ("max_perplexity: 40.0", "max_perplexity: 41.0", {"lm"}),
    ],
)
def test_a_parameter_reruns_what_reads_it(smoke, old, new, rerun):
    path = smoke / "params.yaml"
    original = path.read_text()
    assert old in original
    try:
        path.write_text(original.replace(old, new))
        assert changed_stages(smoke) == rerun
    finally:
        path.write_text(original)


def test_a_notebook_runs_by_hand_from_its_own_folder_without_the_runner(smoke):
    """As JupyterLab does it: own folder, defaults of the parameters cell, no variable of the runner's."""
    folder = smoke / "notebooks/quantization"
    cells = json.loads((folder / "02_bits_report.ipynb").read_text())
    for cell in cells["cells"]:  # the smoke profile has fewer demonstrations than the default
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = ["shots = 2"]
    by_hand = folder / "by_hand.ipynb"
    by_hand.write_text(json.dumps(cells))
    try:
        code, log = command(smoke, "jupyter", "nbconvert", "--to", "notebook", "--execute", "--stdout", by_hand.name,
                            cwd=folder, PYTHONPATH=str(smoke))  # fmt: skip
    finally:
        by_hand.unlink()
    assert code == 0 and "complete: results/quantization/summary_bits.json" in log, log[-3000:]


def test_a_mistyped_parameter_is_one_line_and_loses_nothing(smoke):
    path, before = smoke / "params.yaml", outputs(smoke)
    original = path.read_text()
    try:
        path.write_text(original.replace("damping:", "dampnig:"))
        code, log = command(smoke, "mmlib", "run", STAGE)
        assert code == 2 and log.startswith("error: ") and log.count("\n") == 1, log
        assert "quantization.bits.dampnig" in log and outputs(smoke) == before
    finally:
        path.write_text(original)


@pytest.mark.parametrize(
    ("option", "value", "known"), [("--study", "quantisation", "quantization"), ("--profile", "labtop", "laptop")]
)
def test_unknown_study_and_profile_are_one_line(root, option, value, known):
    code, log = command(root, "mmlib", "reproduce", option, value)
    assert code == 2 and log.count("\n") == 1 and value in log and known in log, log


def test_committed_lock_is_current(root):
    """What a clean clone would have to run again is nothing: dvc.lock matches code, parameters and data.dvc."""
    code, log = command(root, "dvc", "repro", "--allow-missing", "--dry")
    assert code == 0 and "Running stage" not in log, log


def test_committed_ledger_is_what_the_evidence_says(root):
    code, log = command(root, "mmlib", "ledger", "--check")
    assert code == 0, log


def test_lint(root):
    code, log = command(root, "ruff", "check", ".")
    assert code == 0, log
    code, log = command(root, "ruff", "format", "--check", ".")
    assert code == 0, log
