"""`make reproduce`: data, the DVC pipeline, publishing; other profiles run in a scratch copy.

Why a scratch copy (measured with DVC 3.67.1, see CONTRIBUTING): it is the one mechanism under which another
profile neither touches a tracked file nor needs a clean work tree, and still shares cache and run cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mmlib import config, fetch, ledger, notebooks, stages, store
from mmlib.errors import UserError

SCRATCH = Path(".scratch/profiles")
MOST_AT_ONCE = 4  # reading notebooks; each takes up to 1.5 GiB
# Made by runs: the copy keeps its own.
OWN = ("dvc.lock", "results", "reports", "README.md", "params.yaml")


def reproduce(root: Path, study: str = "", profile: str = "") -> None:
    """Bring everything (or one study) up to date at a profile; finished work is never repeated."""
    targets = study_stages(root, study)
    committed = config.load(root).profile
    if profile and profile not in config.profiles(root):
        raise UserError(f"unknown profile `{profile}`", f"choose one of: {', '.join(config.profiles(root))}")
    fetch.fetch(root)
    fetch.record(root)
    if profile in ("", committed):
        repro(root, targets)
        publish(root, study)
        print(f"done: read reports/ (profile {committed}); verdicts in reports/LEDGER.md")
        return
    copy = scratch_copy(root, profile)
    repro(copy, targets)
    publish(copy, study)
    print(f"done: read {copy.relative_to(root)}/reports/ (profile {profile}); no tracked file was touched")


def study_stages(root: Path, study: str) -> list[str]:
    """Stages of one study, all (an empty list, DVC's word for all) without a study.

    Without `ledger`, which would have every other study run first.
    """
    if not study:
        return []
    names = list(stages.load(root))
    known = sorted({name.partition("-")[0] for name in names if "-" in name})
    if study not in known:
        raise UserError(f"unknown study `{study}`", f"choose one of: {', '.join(known)}")
    return [name for name in names if name.startswith(f"{study}-")]


def repro(root: Path, targets: list[str]) -> None:
    """`dvc repro`; what no other stage reads comes last, several stages at a time.

    These are the reading notebooks: many, short, on one core each, so that one after another leaves the rest idle.
    """
    first, last = stages.readers_last(root, targets or stages.load(root))
    if first:
        run_dvc(root, "repro", *first)
    at_once = min(int(os.environ.get("MMLIB_WORKERS", os.cpu_count() or 1)), len(last), MOST_AT_ONCE)
    command = ("--wait-for-lock", "repro", "--single-item")
    running = [start_dvc(root, *command, *last[i::at_once]) for i in range(at_once)]
    if any([process.wait() for process in running]):  # a list: wait for all, whatever the first says
        raise UserError(f"`dvc repro` failed in {root}", "see the message above; then run it again")


def run_dvc(root: Path, *arguments: str) -> None:
    """One DVC command in `root`; its own message stays on the terminal, a failure ends ours."""
    if start_dvc(root, *arguments).wait():
        raise UserError(f"`dvc {' '.join(arguments)}` failed in {root}", "see the message above; then run it again")


def start_dvc(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A DVC command with this interpreter's `python` first on PATH, so that no activation is needed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.Popen([sys.executable, "-m", "dvc", *arguments], cwd=root, env={**os.environ, "PATH": path})


def publish(root: Path, study: str = "") -> None:
    """Copy executed notebooks to reports/, render LEDGER.md and the README's tables.

    After a run of one study its verdicts are put beside those the other studies had before.
    """
    notebooks.publish(root)
    if study:
        ledger.join(root)
    ledger.publish(root)


def scratch_copy(root: Path, profile: str) -> Path:
    """A copy of the work tree at .scratch/profiles/<profile> with merged params.yaml and the shared DVC cache."""
    import io

    from ruamel.yaml import YAML

    copy = root / SCRATCH / profile
    _mirror(root, copy)
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(config.overlay(root, profile), stream)
    store.atomic_write(copy / "params.yaml", stream.getvalue())
    for name in ("README.md",):  # a template to render into, once
        if not (copy / name).exists():
            shutil.copyfile(root / name, copy / name)
    # reflink/hardlink first: data/ is 150 MB and must not be copied for every profile.
    cache = f'[cache]\n    dir = {root / ".dvc/cache"}\n    type = "reflink,hardlink,copy"\n'
    store.atomic_write(copy / ".dvc/config.local", "[core]\n    no_scm = true\n" + cache)
    run_dvc(copy, "checkout", "--quiet", "data.dvc")
    return copy


def _mirror(root: Path, copy: Path) -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        out = subprocess.run(listing, cwd=root, check=True, capture_output=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError("git cannot list the project's files", "run inside the cloned repository") from error
    names = {n for n in out.split("\0") if n and (root / n).is_file() and n.split("/")[0] not in OWN}
    for name in names:
        _copy_changed(root / name, copy / name)
    # A file deleted here must not live on there: stages would still see it.
    for path in [p for top in ("mmlib", "notebooks", "claims") for p in (copy / top).rglob("*") if p.is_file()]:
        if path.relative_to(copy).as_posix() not in names:
            path.unlink()


def _copy_changed(source: Path, target: Path) -> None:
    if target.is_file() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
