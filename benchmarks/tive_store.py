"""Time and peak memory of TIVE's selection from a datastore of paper size: `python -m benchmarks.tive_store --help`.

Stores of random unit vectors, as wide as the paper's (8,192 numbers, float16), with a share of its 665,298 rows and the
task sizes of LLaVA-1.5's pool, are written to a temporary folder that is removed. From each a process of its own
selects 15 %: two passes for the influence, task values, quotas, soft sampling. Sizes are shares of the paper's pool;
the time at its own size is extrapolated from the line through them, which is shown with its residuals.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

WIDTH, LIMIT_BYTES, PER_SHARD = 8192, 6 * 10**9, 4096


def generate(folder: Path, rows: int, width: int) -> None:
    """A store of random vectors around ten directions, one per task."""
    import numpy as np

    from mmlib.tive.datastore import Datastore, Run

    run = Run("generated", "generated", rows, width, PER_SHARD, ("norm",), {})
    made, draw = Datastore(folder, run), np.random.default_rng(0)
    direction = draw.standard_normal(width, dtype=np.float32) / 10
    for number, (start, stop) in enumerate(run.shards()):
        vectors = draw.standard_normal((stop - start, width), dtype=np.float32) + direction
        made.write(number, vectors, {"norm": draw.lognormal(size=stop - start)})


def task_numbers(rows: int) -> Any:
    """Labels of the official pool in its order, thinned to `rows`."""
    import numpy as np

    from mmlib.tive.labels import OFFICIAL

    names = sorted({block.label for block in OFFICIAL})
    whole = np.repeat([names.index(block.label) for block in OFFICIAL], [block.count for block in OFFICIAL])
    return whole[np.linspace(0, len(whole) - 1, rows).astype(int)], names


def select(folder: str, work: str, rows: int, queue: Any) -> None:
    """Select from a store; puts wall and processor seconds of its parts and the peak memory of this process."""
    import resource

    import numpy as np

    from mmlib.tive import selection
    from mmlib.tive.allocation import allocate
    from mmlib.tive.datastore import Datastore
    from mmlib.tive.influence import influence
    from mmlib.tive.values import task_value

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, used = time.perf_counter(), time.process_time()
    tasks, names = task_numbers(rows)
    values = influence(folder, tasks, len(names), work=work, stage="bench", root=Path(work), engine="serial")
    passes = (time.perf_counter() - started, time.process_time() - used)
    difficulty = task_value(Datastore.open(folder).column("norm"), tasks, len(names))
    quotas = allocate(np.bincount(tasks), difficulty, round(0.15 * rows))
    chosen = selection.by_task(tasks, names, quotas, values, 0, q=30.0)
    queue.put({
        "rows": rows, "passes_wall": passes[0], "passes_cpu": passes[1], "wall": time.perf_counter() - started,
        "cpu": time.process_time() - used, "selected": len(chosen.rows), "start_mib": before / 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    })  # fmt: skip


def measure(folder: Path, rows: int, width: int) -> dict[str, Any]:
    """Generate, select, remove. Each in a process of its own: a child begins with the peak memory of its parent."""
    context, started = multiprocessing.get_context("spawn"), time.perf_counter()
    _run(context.Process(target=generate, args=(folder / "store", rows, width)))
    seconds = time.perf_counter() - started
    size, queue = sum(path.stat().st_size for path in (folder / "store").iterdir()), context.SimpleQueue()
    _run(context.Process(target=select, args=(str(folder / "store"), str(folder / "work"), rows, queue)))
    shutil.rmtree(folder)
    return {**queue.get(), "generate": seconds, "bytes": size}


def _run(process: Any) -> None:
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{process.name} ended with status {process.exitcode}")


def line(made: dict[str, Any]) -> str:
    """Of one size."""
    return "; ".join((
        f"{made['rows']:7} rows, {made['bytes'] / 1e9:5.2f} GB",
        f"two passes {made['passes_cpu']:6.2f} s of processor ({made['passes_wall']:6.2f} s passed)",
        f"all {made['cpu']:6.2f} s ({made['wall']:6.2f} s)",
        f"peak memory {made['peak_mib']:5.0f} MiB ({made['start_mib']:.0f} at the start)",
        f"{made['selected']} selected", f"generated in {made['generate']:.1f} s",
    ))  # fmt: skip


def main() -> None:
    """Print a line per size, the line through them, and what it says of the paper's size."""
    import numpy as np

    from mmlib.tive.labels import OFFICIAL

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.025, 0.05, 0.1])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--folder", help="where to put the stores (default: the system's temporary folder)")
    arguments = parser.parse_args()
    whole, results = sum(block.count for block in OFFICIAL), []
    for share in arguments.shares:
        rows = round(share * whole)
        if 2 * rows * arguments.width > LIMIT_BYTES:
            parser.error(f"share {share} needs {2e-9 * rows * arguments.width:.1f} GB, the limit is 6 GB")
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            results.append(made := measure(Path(folder) / "bench", rows, arguments.width))
        print(line(made), flush=True)
    n, seconds = np.array([r["rows"] for r in results]), np.array([r["cpu"] for r in results])
    if len(results) > 2:
        slope, offset = np.polyfit(n, seconds, 1)
        off = ", ".join(f"{s - slope * x - offset:+.2f}" for x, s in zip(n, seconds, strict=True))
        print(f"processor time: {1e6 * slope:.1f} µs a row + {offset:.2f} s (residuals {off} s); "
              f"at {whole:,} rows: {slope * whole + offset:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
