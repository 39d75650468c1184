"""`python -m mmlib run <stage>`: one notebook, executed with typed parameters, accepted only if it is complete.

Plumbing: nothing here may change a number. papermill is used through its Python API only: on its command line
`false` becomes text, unknown parameters are a mere warning, and `sys.exit(0)` half-way counts as success.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmlib import notebooks, stages, store
from mmlib.errors import UserError
from mmlib.stages import Stage
from mmlib.usage import Usage

KERNEL = "mmlib-runner"
RECORD = "MMLIB_COMPLETION"  # environment variable: where `complete` leaves its record


def run(name: str, root: Path, script: bool = False) -> None:
    """Run one stage of dvc.yaml.

    Args:
        script: run the notebook's code as a plain script, without Jupyter (cluster nodes, debuggers).

    Raises:
        UserError: a wrong parameter or a missing input before anything runs; a failed cell, a hang, a dead kernel or
            an incomplete notebook afterwards. Outputs of a failed run are removed, resumable work is kept.
    """
    stage = stages.get(root, name)
    if not stage.notebook:
        raise UserError(f"stage {name} runs no notebook", f"run it with `{stage.cmd}`")
    values = check_parameters(stage, root)
    check_inputs(stage, root)
    log = root / ".scratch" / "runs" / name
    log.mkdir(parents=True, exist_ok=True)
    record, started = log / "completion.json", time.time()
    record.unlink(missing_ok=True)
    try:
        with Usage() as usage, environment(root, values, record):
            executed = (_as_script if script else _with_jupyter)(stage, values, root, log)
        verify(stage, root, record)
    except BaseException:
        _discard(stage, root, started)
        raise
    if stage.executed:
        store.atomic_write(root / stage.executed, executed)
    used = usage.record()
    store.write_json(log / "run.json", {"stage": name, **used})
    shutil.rmtree(root / ".scratch" / "shards" / name, ignore_errors=True)
    print("{}: {seconds:.0f} s, {cpu_seconds:.0f} s of processor time, {peak_mib:.0f} MiB".format(name, **used))


def check_parameters(stage: Stage, root: Path) -> dict[str, Any]:
    """Parameters of the stage; names and types must be those of the notebook's `parameters` cell."""
    values = stages.parameters(stage, root)
    defaults = notebooks.parameter_defaults(notebooks.read(root / stage.notebook))
    for name in sorted(values.keys() ^ defaults.keys()):
        where = "the notebook's parameters cell" if name in values else "the stage's `params:` in dvc.yaml"
        raise UserError(f"{stage.notebook}: parameter `{name}` is missing in {where}", "add it there or remove it here")
    for name, value in values.items():
        if type(value) is not type(defaults[name]):
            kinds = f"{type(value).__name__} in params.yaml, {type(defaults[name]).__name__} in the notebook"
            raise UserError(f"{stage.notebook}: parameter `{name}` is {kinds}", "make the two agree")
    return values


def check_inputs(stage: Stage, root: Path) -> None:
    """Every dependency must exist; a missing one names the command that makes it."""
    for dep in stage.deps:
        if not (root / dep).exists():
            command = "python -m mmlib fetch" if dep.startswith("data/") else "make reproduce"
            raise UserError(f"stage {stage.name} needs {dep}, which is missing", f"run `{command}`")


@contextlib.contextmanager
def environment(root: Path, values: dict[str, Any], record: Path) -> Iterator[None]:
    """Variables that must stand before the kernel starts; restored afterwards."""
    offline = "0" if values.get("source") == "hub" else "1"
    wanted = {
        RECORD: str(record),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")])),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": offline,
        "HF_DATASETS_OFFLINE": offline,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore:IProgress not found",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)


def _with_jupyter(stage: Stage, values: dict[str, Any], root: Path, log: Path) -> bytes:
    warnings.filterwarnings("ignore", message="IProgress not found")  # what papermill imports asks for widgets
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    raw = log / "raw.ipynb"
    try:
        with _kernelspec(), (log / "output.txt").open("w") as stdout:
            papermill.execute_notebook(
                root / stage.notebook, raw, parameters=values, kernel_name=KERNEL, language="python", cwd=root,
                execution_timeout=stage.timeout, start_timeout=120, progress_bar=False, log_output=False,
                stdout_file=stdout, stderr_file=sys.stderr,
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        raise _explain(error, stage, raw.relative_to(root)) from error
    except CellTimeoutError as error:
        raise UserError(f"{stage.notebook}: a cell ran over {stage.timeout} s", "raise the stage's timeout") from error
    except DeadKernelError as error:
        raise UserError(f"{stage.notebook}: its kernel died", "free memory if it ran out, then run again") from error
    return notebooks.normalise(notebooks.read(raw), root)


def _explain(error: Any, stage: Stage, raw: Path) -> UserError:
    if error.ename == "UserError":  # already one line with culprit and remedy
        culprit, _, remedy = error.evalue.rpartition("; ")
        return UserError(f"{stage.notebook}: {culprit}", remedy)
    first = (error.evalue or "").strip().splitlines()[:1]
    culprit = f"{stage.notebook}, cell {error.exec_count}: {error.ename}: {' '.join(first)}"
    return UserError(culprit, f"read {raw}, mend it and run again: finished shards are kept")


@contextlib.contextmanager
def _kernelspec() -> Iterator[None]:
    """A kernel of this very interpreter, whatever kernels are or are not registered on the machine."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mmlib.kernel", "-f", "{connection_file}", "--log-level=ERROR"]
        spec = {"argv": command, "display_name": KERNEL, "language": "python"}
        store.write_json(Path(folder) / "kernels" / KERNEL / "kernel.json", spec)
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            os.environ.pop("JUPYTER_PATH") if before is None else os.environ.update(JUPYTER_PATH=before)


def _as_script(stage: Stage, values: dict[str, Any], root: Path, log: Path) -> bytes:
    os.environ.setdefault("MPLBACKEND", "agg")
    notebook = notebooks.read(root / stage.notebook)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(root):
        for number, cell in enumerate(notebooks.code_cells(notebook), start=1):
            code = compile(notebooks.source(cell), f"{stage.notebook}, cell {number}", "exec")
            try:
                exec(code, namespace)
            except SystemExit:
                break  # the missing completion record says the rest
            if "parameters" in cell["metadata"].get("tags", []):
                namespace.update(json.loads(json.dumps(values)))
    return notebooks.canonical(notebook)


def complete(name: str) -> None:
    """Call in a notebook's last cell: records what the stage wrote, so that a half-run is never taken for a whole.

    By hand (in JupyterLab) it only checks that everything is there.
    """
    root = store.project_root()
    stage = stages.get(root, name)
    hashes = {product: _fingerprint(stage, root / product) for product in stage.products}
    record = os.environ.get(RECORD)
    if record:
        store.write_json(record, {"stage": name, "products": hashes})
    print(f"complete: {', '.join(hashes)}")


def _fingerprint(stage: Stage, path: Path) -> str:
    if not path.exists():
        raise UserError(f"stage {stage.name} did not write {path.name}", "write it, or remove it from dvc.yaml")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return store.digest({str(file.relative_to(path.parent)): store.sha256_file(file) for file in files})


def verify(stage: Stage, root: Path, record: Path) -> None:
    """The completion record must exist, name the stage, and still describe every product."""
    if not record.is_file():
        raise UserError(f"{stage.notebook} ended before its last cell", "look for an early exit, mend it and run again")
    said = store.read_json(record)
    if said["stage"] != stage.name:
        raise UserError(f'{stage.notebook} calls complete("{said["stage"]}")', f'call complete("{stage.name}")')
    for product in stage.products:
        if said["products"].get(product) != _fingerprint(stage, root / product):
            raise UserError(f"{product} changed after complete()", "call complete() in the last cell")


def _discard(stage: Stage, root: Path, started: float) -> None:
    """Remove what a failed run wrote: half a result must never look like a whole one."""
    for product in stage.products:
        path = root / product
        if path.exists() and max(p.stat().st_mtime for p in (path, *path.rglob("*"))) >= started:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
