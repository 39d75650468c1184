"""Pictures in Arrow shards: thousands to a file, read through a memory map by name; never a file per picture.

The layout is the one that `datasets` opens (`load_dataset("arrow", data_files=…)`): columns `name`, `height`, `width`
and `pixels` (row-major uint8 RGB). Equal pictures give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmlib import store
from mmlib.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

ROWS = 4096  # pictures per shard


def write_pictures(folder: Path, pictures: Iterable[tuple[str, np.ndarray]], rows: int = ROWS) -> int:
    """Write (name, uint8 (H, W, 3)) pairs as `pictures-00000.arrow` … with a manifest; the number of pictures.

    Raises:
        UserError: two pictures of one name.
    """
    seen: set[str] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(_parts(pictures, rows)):
        for name, _ in part:
            if name in seen:
                raise UserError(f"two pictures are called {name}", "give every picture its own name")
            seen.add(name)
        store.atomic_write(folder / f"pictures-{number:05d}.arrow", _as_arrow(part))
    store.write_manifest(folder, pictures=len(seen))
    return len(seen)


def _parts(pictures: Iterable[tuple[str, np.ndarray]], rows: int) -> Iterator[list[tuple[str, np.ndarray]]]:
    part: list[tuple[str, np.ndarray]] = []
    for pair in pictures:
        part.append(pair)
        if len(part) == rows:
            yield part
            part = []
    if part:
        yield part


def _as_arrow(part: list[tuple[str, np.ndarray]]) -> bytes:
    import pyarrow

    kind = pyarrow.int32()
    table = pyarrow.table({
        "name": [name for name, _ in part],
        "height": pyarrow.array([picture.shape[0] for _, picture in part], kind),
        "width": pyarrow.array([picture.shape[1] for _, picture in part], kind),
        "pixels": pyarrow.array([picture.tobytes() for _, picture in part], pyarrow.large_binary()),
    })  # fmt: skip
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


class Pictures(Mapping[str, "np.ndarray"]):
    """Pictures of a folder by name, read when they are asked for.

    Raises:
        UserError: a shard is missing, cut short, changed or foreign (the manifest tells); an unknown name.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow

        self.folder = Path(folder)
        store.verify_manifest(self.folder)
        self._tables: list[pyarrow.Table] = []
        self._places: dict[str, tuple[int, int]] = {}
        for number, path in enumerate(sorted(self.folder.glob("pictures-*.arrow"))):
            with pyarrow.memory_map(str(path)) as source:
                table = pyarrow.ipc.open_stream(source).read_all()
            self._tables.append(table.combine_chunks())
            self._places |= {name: (number, row) for row, name in enumerate(table["name"].to_pylist())}

    def __getitem__(self, name: str) -> np.ndarray:
        """uint8 (H, W, 3), read-only."""
        import numpy as np

        if name not in self._places:
            raise UserError(f"no picture {name} in {self.folder}", "use records and pictures of the same pool")
        number, row = self._places[name]
        table = self._tables[number]
        shape = (table["height"][row].as_py(), table["width"][row].as_py(), 3)
        return np.frombuffer(table["pixels"][row].as_buffer(), np.uint8).reshape(shape)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
