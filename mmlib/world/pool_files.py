"""A pool on disk: `pool.json` in LLaVA's layout, and its pictures in Arrow shards beside it."""

from __future__ import annotations

from pathlib import Path

from mmlib.errors import UserError
from mmlib.formats.llava import Record, read_records, write_records
from mmlib.formats.reading import Skips
from mmlib.world import pool
from mmlib.world.render import Renderer
from mmlib.world.scenes import Scene
from mmlib.world.shards import Pictures, write_pictures


def write_pool(folder: Path, records: list[Record], scenes: list[Scene], renderer: Renderer) -> int:
    """Write the records, and every picture that one of them names, drawn once; the number of pictures."""
    by_id = {scene.id: scene for scene in scenes}
    names = sorted({record.image for record in records if record.image})
    write_records(folder / "pool.json", records)
    return write_pictures(folder / "pictures", ((name, renderer.render(by_id[pool.scene_id(name)])) for name in names))


def open_pool(folder: Path) -> tuple[list[Record], Pictures]:
    """Records and pictures of a pool that `write_pool` wrote.

    Raises:
        UserError: a record was skipped (the pool is ours: it has no defects), or its picture is not there.
    """
    skips = Skips()
    records, pictures = list(read_records(folder / "pool.json", skips, pool.LABELS)), Pictures(folder / "pictures")
    if skips.counts:
        raise UserError(f"{folder / 'pool.json'}: {skips}", "make the pool again: `dvc repro -f world-pool`")
    if lost := next((r for r in records if r.image and r.image not in pictures), None):
        raise UserError(f"record {lost.id}: no picture {lost.image} in {folder}", "use the pool's own pictures")
    return records, pictures
