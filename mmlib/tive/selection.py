"""The selected subset: rows of the pool, what was done per task, and the LLaVA JSON with its manifest.

`by_task` fills quotas task by task; `over_all` takes the highest values of the whole pool whatever their task.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.tive import sampling

if TYPE_CHECKING:
    import numpy as np

    from mmlib.formats.llava import Record

NO_EFFECT = 0.99  # effective share from which a sampling by value is called uniform in the manifest


@dataclass(frozen=True)
class Selection:
    """`rows` of the pool in selection order (a row that was taken twice stands twice); a line of `report` per task."""

    rows: np.ndarray  # (budget,) int64
    report: list[dict[str, Any]]

    @property
    def unique(self) -> int:
        """Different records."""
        return len(set(self.rows.tolist()))


def by_task(
    tasks: np.ndarray, names: list[str], quotas: np.ndarray, values: np.ndarray, seed: int, *,
    q: float | None = None, choose: sampling.Chooser | None = None,
) -> Selection:  # fmt: skip
    """Fill each task's quota from its records, softly at inverse temperature `q` or by another chooser.

    Args:
        tasks: (n,) numbers of `names`; values: (n,).
        choose: for example `sampling.top`; then q must be None.
    Raises:
        UserError: both or neither of q and choose; a quota of an empty task.
    """
    import numpy as np

    if (q is None) == (choose is None):
        raise UserError("a selection needs either `q` or `choose`", "give one of them")
    choose = choose or partial(sampling.gumbel_top, q=q)
    parts, report = [], []
    for number, (name, quota) in enumerate(zip(names, quotas.tolist(), strict=True)):
        rows = np.flatnonzero(tasks == number)
        if quota and not len(rows):
            raise UserError(f"task {name} shall give {quota} records and has none", "leave it out of the quotas")
        own = values[rows]
        chosen = sampling.with_duplicates(choose, own, quota, sampling.generator(seed, name))
        parts.append(rows[chosen])
        report.append(_line(name, own, chosen, q))
    return Selection(np.concatenate(parts), report)


def _line(name: str, values: np.ndarray, chosen: np.ndarray, q: float | None) -> dict[str, Any]:
    unique = len(set(chosen.tolist()))
    line = {"task": name, "size": len(values), "taken": len(chosen), "unique": unique,
            "duplicates": len(chosen) - unique, "lift": round(sampling.lift(values, chosen), 6)}  # fmt: skip
    if q is not None and len(values):
        share = sampling.effective_share(values, q)
        line |= {"effective_share": round(share, 6), "no_effect": bool(q and share > NO_EFFECT)}
    return line


def in_classes(
    tasks: np.ndarray, names: list[str], quotas: np.ndarray, values: np.ndarray, classes: np.ndarray
) -> Selection:
    """The highest values within each answer class of each task; quotas may not exceed the tasks."""
    import numpy as np

    parts, report = [], []
    for number, (name, quota) in enumerate(zip(names, quotas.tolist(), strict=True)):
        rows = np.flatnonzero(tasks == number)
        chosen = sampling.top_within_class(values[rows], classes[rows], quota)
        parts.append(rows[chosen])
        report.append(_line(name, values[rows], chosen, None))
    return Selection(np.concatenate(parts), report)


def over_all(tasks: np.ndarray, names: list[str], values: np.ndarray, budget: int) -> Selection:
    """The `budget` highest values of the whole pool."""
    import numpy as np

    rows = sampling.top(values, budget)
    lines = [(name, np.flatnonzero(tasks == number)) for number, name in enumerate(names)]
    report = [_line(name, values[own], np.flatnonzero(np.isin(own, rows)), None) for name, own in lines]
    return Selection(rows, report)


def write(
    path: Path, records: list[Record], selection: Selection, facts: dict[str, Any],
    sizes: dict[str, np.ndarray] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the selected records as LLaVA JSON in selection order, and `<name>.manifest.json` beside it.

    Args:
        facts: what made the selection: seed, budget, q, rule, task values, fingerprints of pool and model.
        sizes: by name, a number per record of the pool (tokens, answer tokens), to be summed over the selection: arms
            of equal records may see very different numbers of tokens.
    Returns:
        The manifest: facts, counts, the report per task, and the hash of the selected file.
    """
    from mmlib.formats.llava import write_records

    if len(selection.rows) and int(selection.rows.max()) >= len(records):
        raise UserError(f"row {int(selection.rows.max())} of a pool of {len(records)} records", "use the same pool")
    chosen = [records[row] for row in selection.rows.tolist()]
    write_records(path, chosen)
    manifest = {
        **facts, "records": len(chosen), "unique": selection.unique, "tasks": selection.report,
        "sums": {name: float(numbers[selection.rows].sum()) for name, numbers in (sizes or {}).items()},
        "images": len({record.image for record in chosen if record.image}), "sha256": store.sha256_file(path),
    }  # fmt: skip
    store.write_json(path.with_suffix(".manifest.json"), manifest)
    return manifest


def table(selection: Selection) -> str:
    """The report as text, a line per task: always shown, so that a sampling that prefers nothing is seen."""
    head = f"{'task':16} {'size':>7} {'taken':>7} {'unique':>7} {'ESS/n':>7} {'lift':>7}"
    return "\n".join([head, *map(_row, selection.report)])


def _row(line: dict[str, Any]) -> str:
    share = f"{line['effective_share']:.3f}" if "effective_share" in line else "–"
    mark = "  as good as uniform" if line.get("no_effect") else ""
    return (f"{line['task']:16} {line['size']:7} {line['taken']:7} {line['unique']:7} {share:>7} "
            f"{line['lift']:+7.2f}{mark}")  # fmt: skip
