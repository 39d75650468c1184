"""Instance influence of a whole datastore in two passes: sums per task, then one product per record.

No n x n matrix (the released code makes one: 49.7 GB for its largest task) and never more than `ROWS` rows in memory.
Shards go through `engine.shard_map`; sums of shards are added in order, so every engine gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.tive.datastore import Datastore

if TYPE_CHECKING:
    import numpy as np

ROWS = 2048  # in float32 at a time: 64 MiB at 8,192 numbers a row


def influence(
    folder: Path | str, tasks: np.ndarray, count: int, *, work: Path | str, stage: str, pool: str | None = None,
    root: Path | None = None, engine: str | None = None, workers: int | None = None,
) -> np.ndarray:  # fmt: skip
    """v_i = ⟨ĝ_i, μ_t⟩ of every row of a datastore, float64 (n,).

    Args:
        tasks: int (n,) numbers below `count`, in pool order.
        work: folder for the tasks, sums and means of the passes (count x k float64 per shard).
        pool: fingerprint of the pool that the tasks belong to; None: not compared.
        stage, root, engine, workers: as in `engine.shard_map`; finished shards of an interrupted run are kept there.
    Raises:
        UserError: the tasks or the pool do not match the rows, or a shard is missing or of another run.
    """
    import numpy as np

    from mmlib.engine import shard_map

    run = Datastore.open(folder, pool).run
    if len(tasks) != run.rows:
        raise UserError(f"{len(tasks)} task labels for the {run.rows} rows of {folder}", "use the pool of the store")
    work = Path(work)
    _save(work / "tasks.npy", np.asarray(tasks, np.int64))
    shards = [{"name": f"{number}", "number": number, "store": str(folder), "work": str(work), "count": count}
              for number in range(len(run.shards()))]  # fmt: skip
    key = {"run": run.fingerprint, "tasks": store.sha256_file(work / "tasks.npy"), "work": str(work)}
    how = {"root": root, "engine": engine, "workers": workers}
    sums = shard_map(sum_units, shards, stage=f"{stage}-sums", key=key, **how)
    means = np.zeros((count, run.size))
    for made in sums:
        means += _load(work / made["file"], made["sha256"])
    means /= np.maximum(np.bincount(tasks, minlength=count), 1)[:, None]
    _save(work / "means.npy", means)
    key |= {"means": store.sha256_file(work / "means.npy")}
    parts = shard_map(products, shards, stage=f"{stage}-products", key=key, **how)
    return np.concatenate([_load(work / made["file"], made["sha256"]) for made in parts])


def sum_units(shard: dict[str, Any]) -> dict[str, str]:
    """First pass over a shard: sums of its unit vectors by task, (count, k) float64, in a file."""
    import numpy as np

    vectors, tasks = _shard(shard)
    total = np.zeros((shard["count"], vectors.shape[1]))
    for start in range(0, len(vectors), ROWS):
        part, of = vectors[start : start + ROWS].astype(np.float32), tasks[start : start + ROWS]
        present = np.unique(of)  # few tasks share a block, so few rows of the matrix below are not zero
        member = (of == present[:, None]).astype(np.float32)  # (tasks, rows)
        total[present] += member @ part
    return _save(Path(shard["work"]) / f"sums-{shard['number']:05d}.npy", total)


def products(shard: dict[str, Any]) -> dict[str, str]:
    """Second pass over a shard: ⟨ĝ_i, μ_t⟩ of its rows, in a file."""
    import numpy as np

    vectors, tasks = _shard(shard)
    means = np.load(Path(shard["work"]) / "means.npy", allow_pickle=False).astype(np.float32)
    values = np.empty(len(vectors))
    for start in range(0, len(vectors), ROWS):
        part, of = vectors[start : start + ROWS].astype(np.float32), tasks[start : start + ROWS]
        present, place = np.unique(of, return_inverse=True)
        values[start : start + ROWS] = (part @ means[present].T)[np.arange(len(part)), place]
    return _save(Path(shard["work"]) / f"values-{shard['number']:05d}.npy", values)


def _shard(shard: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    data = Datastore.open(shard["store"])
    start, stop = data.run.shards()[shard["number"]]
    tasks = np.load(Path(shard["work"]) / "tasks.npy", mmap_mode="r", allow_pickle=False)[start:stop]
    return data.vectors(shard["number"]), np.asarray(tasks)


def _save(path: Path, array: np.ndarray) -> dict[str, str]:
    import numpy as np

    with store.atomic_stream(path) as stream:
        np.save(stream.buffer, array, allow_pickle=False)
    return {"file": path.name, "sha256": store.sha256_file(path)}


def _load(path: Path, sha256: str) -> np.ndarray:
    import numpy as np

    if not path.is_file() or store.sha256_file(path) != sha256:
        raise UserError(f"{path} is missing or changed", "delete the folder .scratch and run again")
    return np.load(path, allow_pickle=False)
