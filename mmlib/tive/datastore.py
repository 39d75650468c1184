"""A streaming store of projected gradients: shards of unit vectors in float16, each with hashes and a manifest.

`store.json` says what the rows are (pool, model, recipe); `shard-00003.json`, written last, says that a shard is whole.
Rows are stored as unit vectors with their projected norm beside them: float16 then cannot overflow, and cosines are
what the method needs. Row order is pool order.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch.nn import Module

    from mmlib.formats.llava import Record

SCHEMA = 1
PROJECTED_NORM = "projected_norm"


@dataclass(frozen=True)
class Run:
    """What decides every row of a store."""

    pool: str  # fingerprint of the records, in order
    model: str  # fingerprint of the reference model's weights
    rows: int
    size: int  # numbers of a row
    rows_per_shard: int
    columns: tuple[str, ...]  # of the scalars beside the vectors
    recipe: dict[str, Any]  # projection seed, layers, loss …: whatever else decides a number

    @property
    def fingerprint(self) -> str:
        """Of everything above."""
        return store.digest({"schema": SCHEMA, **asdict(self), "columns": list(self.columns)})

    def shards(self) -> list[tuple[int, int]]:
        """(start, stop) of every shard."""
        return [(i, min(i + self.rows_per_shard, self.rows)) for i in range(0, self.rows, self.rows_per_shard)]


class Datastore:
    """The shards of one run in a folder.

    Opening a folder that belongs to another run raises a UserError that names what differs.
    """

    def __init__(self, folder: Path | str, run: Run) -> None:
        self.folder, self.run = Path(folder), run
        facts = {"schema": SCHEMA, "fingerprint": run.fingerprint, **asdict(run), "columns": list(run.columns)}
        path = self.folder / "store.json"
        if path.exists():
            _same(store.read_json(path), facts, path)
        else:
            store.write_json(path, facts)

    @classmethod
    def open(cls, folder: Path | str, pool: str | None = None) -> Datastore:
        """An existing store, by what its own `store.json` says.

        Args:
            pool: fingerprint that its rows must belong to; None: not compared.
        """
        facts = store.read_json(Path(folder) / "store.json")
        if pool is not None and facts["pool"] != pool:
            culprit = f"the rows of {folder} belong to pool {facts['pool'][:12]}, not to {pool[:12]}"
            raise UserError(culprit, "make the gradients of this pool, or select from the pool they were made of")
        keys = Run.__dataclass_fields__
        return cls(folder, Run(**{key: facts[key] for key in keys} | {"columns": tuple(facts["columns"])}))

    def todo(self) -> list[int]:
        """Numbers of shards that are not there, in order: an interrupted run goes on with these."""
        return [n for n in range(len(self.run.shards())) if not self._path(n, "json").exists()]

    def write(self, number: int, vectors: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Write a shard.

        Args:
            vectors: float (m, size), projected gradients, any length.
            columns: m numbers each, by the names of the run.
        Raises:
            UserError: wrong shape or names; NaN or zero vectors (rows are named by their number in the pool).
        """
        import numpy as np

        start, stop = self._span(number)
        if vectors.shape != (stop - start, self.run.size) or set(columns) != set(self.run.columns):
            culprit = f"shard {number} with vectors {vectors.shape} and columns {', '.join(columns)}"
            raise UserError(culprit, f"give ({stop - start}, {self.run.size}) and {', '.join(self.run.columns)}")
        norms = np.linalg.norm(vectors.astype(np.float32, copy=False), axis=1).astype(np.float64)
        table = np.stack([*(np.asarray(columns[name], np.float64) for name in self.run.columns), norms])
        refuse(np.isfinite(table).all(0) & (norms > 0), "is NaN, infinite or zero", start)
        self._write_array(number, "vectors", (vectors / norms[:, None].astype(np.float32)).astype(np.float16))
        self._write_array(number, "scalars", table)
        hashes = {kind: store.sha256_file(self._array(number, kind)) for kind in ("vectors", "scalars")}
        facts = {"run": self.run.fingerprint, "start": start, "stop": stop, "sha256": hashes}
        store.write_json(self._path(number, "json"), facts)

    def vectors(self, number: int) -> np.ndarray:
        """float16 (m, size) unit vectors of a shard, memory-mapped."""
        self._check(number)
        return self._load(number, "vectors", mmap="r")

    def scalars(self, number: int) -> dict[str, np.ndarray]:
        """float64 (m,) columns of a shard, and the projected norm."""
        self._check(number)
        return dict(zip((*self.run.columns, PROJECTED_NORM), self._load(number, "scalars"), strict=True))

    def column(self, name: str) -> np.ndarray:
        """A column of all rows, float64 (n,)."""
        import numpy as np

        return np.concatenate([self.scalars(number)[name] for number in range(len(self.run.shards()))])

    def verify(self) -> None:
        """Read every shard and compare its hashes.

        Raises:
            UserError: a shard that is missing, changed, or of another run, by its file.
        """
        for number in range(len(self.run.shards())):
            facts = self._check(number)
            for kind, recorded in facts["sha256"].items():
                if store.sha256_file(self._array(number, kind)) != recorded:
                    remedy = f"delete {self._path(number, 'json').name} and run the gradients again: the rest is kept"
                    raise UserError(f"{self._array(number, kind)} changed since it was written", remedy)

    def _check(self, number: int) -> dict[str, Any]:
        path, (start, stop) = self._path(number, "json"), self._span(number)
        if not path.exists():
            raise UserError(f"{path} is missing", "run the gradients again: the other shards are kept")
        facts = store.read_json(path)
        if facts["run"] != self.run.fingerprint or (facts["start"], facts["stop"]) != (start, stop):
            culprit = f"{path} holds rows {facts['start']} to {facts['stop']} of run {facts['run'][:12]}"
            wanted = f"rows {start} to {stop} of run {self.run.fingerprint[:12]} belong there"
            raise UserError(culprit, f"{wanted}: delete it and run the gradients again")
        return facts

    def _load(self, number: int, kind: str, mmap: str | None = None) -> np.ndarray:
        import numpy as np

        start, stop = self._span(number)
        path, (rows, columns) = self._array(number, kind), (stop - start, len(self.run.columns) + 1)
        try:
            array = np.load(path, mmap_mode=mmap, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error})", "run the gradients again") from error
        if array.shape != ((rows, self.run.size) if kind == "vectors" else (columns, rows)):
            raise UserError(f"{path} has shape {array.shape}", "delete its .json and run the gradients again")
        return array

    def _write_array(self, number: int, kind: str, array: np.ndarray) -> None:
        import numpy as np

        with store.atomic_stream(self._array(number, kind)) as stream:
            np.save(stream.buffer, array, allow_pickle=False)

    def _span(self, number: int) -> tuple[int, int]:
        return self.run.shards()[number]

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"shard-{number:05d}.{suffix}"

    def _array(self, number: int, kind: str) -> Path:
        return self.folder / f"shard-{number:05d}.{kind}.npy"


def refuse(sound: np.ndarray, what: str, start: int = 0, names: list[str] | None = None) -> None:
    """Raise a UserError naming the first rows that are not `sound`."""
    import numpy as np

    bad = np.flatnonzero(~sound)
    if len(bad):
        shown = ", ".join(names[i] if names else f"row {start + i}" for i in bad[:3].tolist())
        raise UserError(f"the gradient of {len(bad)} records {what}: {shown}", "mend or remove these records")


def _same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    wanted = dict(store_json(wanted))
    if differs := [key for key in wanted if key != "fingerprint" and found.get(key) != wanted[key]]:
        shown = ", ".join(f"{key} {str(found.get(key))[:20]} there, {str(wanted[key])[:20]} here" for key in differs)
        raise UserError(f"{path} belongs to another run ({shown})", "use another folder, or delete this one")


def store_json(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts as they come back from JSON (tuples become lists)."""
    import json

    return json.loads(store.dump_json(facts))


def pool_fingerprint(records: list[Record]) -> str:
    """SHA-256 over the records' public layout, in order, without task labels: they move no gradient."""
    total = hashlib.sha256()
    for record in records:
        facts = {key: value for key, value in record.as_json().items() if key != "dataset"}
        total.update(store.dump_json(facts).encode())
    return total.hexdigest()


def model_fingerprint(model: Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all weights, adapters included, in order of name."""
    import torch

    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
