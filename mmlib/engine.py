"""`shard_map`: the one way in which work maps over items, resumable and with equal bytes on every engine.

A shard is a small JSON description; its result is JSON too. Each finished shard is written to
.scratch/shards/<stage>/ under the hash of (deps, parameters, shard), so a killed run goes on where it was
and a changed input never meets an old result. The runner removes the folder when the stage succeeds.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.errors import UserError

ENGINES = ("serial", "process")
Shard = dict[str, Any]


def shard_map(
    function: Callable[[Shard], Any],
    shards: list[Shard],
    *,
    stage: str,
    key: dict[str, Any],
    root: Path | None = None,
    engine: str | None = None,
    workers: int | None = None,
) -> list[Any]:
    """Results of `function` over `shards`, in order; finished shards of an interrupted run are not repeated.

    `function` must be importable (worker processes import it) and pure. `key` holds what else decides the
    result: input hashes and parameters (`stage_key`). `engine` defaults to the environment variable
    MMLIB_ENGINE or `process`, `workers` to MMLIB_WORKERS or the number of cores.

    Raises:
        UserError: unknown engine, duplicate shards, or a shard that failed (it is named; others are kept).
    """
    engine = engine or os.environ.get("MMLIB_ENGINE", "process")
    if engine not in ENGINES:
        raise UserError(f"unknown engine `{engine}`", f"set MMLIB_ENGINE to one of: {', '.join(ENGINES)}")
    folder = (root or store.project_root()) / ".scratch" / "shards" / stage
    paths = [folder / f"{store.digest({'key': key, 'shard': shard})}.json" for shard in shards]
    if len(set(paths)) != len(paths):
        raise UserError(f"{stage}: two shards are equal", "make the list of variants free of duplicates")
    todo = [(shard, path) for shard, path in zip(shards, paths, strict=True) if read_shard(path) is None]
    _drain(function, todo, stage, len(shards), engine, workers)
    return [read_shard(path)["result"] for path in paths]


def read_shard(path: Path) -> Any | None:
    """The stored shard, or None when it is absent or does not match its own hash (a torn or edited file)."""
    try:
        stored = store.read_json(path)
        return stored if stored["sha256"] == store.digest(stored["result"]) else None
    except (UserError, KeyError, TypeError):
        return None


def stage_key(deps: list[str], params: dict[str, Any], root: Path) -> dict[str, Any]:
    """What decides a shard's result besides the shard: hashes of every dep but notebooks, and the parameters.

    The notebook itself is left out: what it contributes are the shards and parameters, keyed by value, so
    editing prose does not throw finished work away.
    """
    hashes = {}
    for dep in sorted(d for d in deps if not d.endswith(".ipynb")):
        path = root / dep
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        hashes.update({p.relative_to(root).as_posix(): store.sha256_file(p) for p in files})
    return {"deps": hashes, "params": params}


def _drain(
    function: Callable[[Shard], Any],
    todo: list[tuple[Shard, Path]],
    stage: str,
    total: int,
    engine: str,
    workers: int | None,
) -> None:
    from tqdm import tqdm

    done = total - len(todo)
    if done and todo:
        # stderr: on the terminal, but not in the executed notebook, which must not tell how often it was interrupted.
        print(f"{stage}: {done} of {total} shards were finished by an earlier run", file=sys.stderr)
    run = _serial if engine == "serial" else _process
    with tqdm(total=total, initial=done, desc=stage, unit="shard", smoothing=0) as bar:
        for shard in run(function, todo, workers):
            bar.set_postfix_str(str(shard.get("name", "")), refresh=False)
            bar.update()


def _one(function: Callable[[Shard], Any], shard: Shard, path: Path) -> Shard:
    # Written where it was computed: a result must survive the death of whoever asked for it.
    result = function(shard)
    store.write_json(path, {"shard": shard, "result": result, "sha256": store.digest(result)})
    return shard


def _failed(shard: Shard, error: BaseException) -> UserError:
    reason = f"{type(error).__name__}: {error}"
    return UserError(f"shard {shard.get('name', shard)} failed ({reason})", "mend it and run again: the rest is kept")


def _serial(function: Any, todo: list[tuple[Shard, Path]], workers: int | None) -> Iterator[Shard]:
    for shard, path in todo:
        try:
            yield _one(function, shard, path)
        except Exception as error:
            raise _failed(shard, error) from error


def _process(function: Any, todo: list[tuple[Shard, Path]], workers: int | None) -> Iterator[Shard]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    workers = min(workers or int(os.environ.get("MMLIB_WORKERS", os.cpu_count() or 1)), len(todo))
    if workers < 1:
        return
    # spawn: forking a process that has already run torch's thread pool can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent) as pool:
        futures = {pool.submit(_one, function, shard, path): shard for shard, path in todo}
        for future in as_completed(futures):
            if error := future.exception():
                pool.shutdown(wait=True, cancel_futures=True)
                raise _failed(futures[future], error) from error
            yield future.result()


def _die_with_parent() -> None:
    """End this worker when its parent is gone: after `kill -9` of the parent nothing else would."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()
