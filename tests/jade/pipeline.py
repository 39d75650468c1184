"""A shard of generation with a tiny model, importable by workers and by a process that a test kills."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from mmlib import store
from mmlib.formats.reading import Skips
from mmlib.jade import corpora, detect, generate
from mmlib.jade.batches import Maker
from mmlib.jade.model import Shape
from mmlib.jade.tokens import Words
from mmlib.world.render import Renderer
from tests.jade.conftest import SIDE, small_model

SCENES, SHAPE = corpora.draw_part("web", 12, 0), Shape(width=32, layers=2)
NAMES = [scene.id for scene in SCENES]


@cache
def kit():
    images = corpora.pictures(Renderer(store.project_root(Path(__file__).parent) / "data"), SCENES, corpora.Clutter())
    pictures = generate.with_boxes(SCENES, images, detect.Oracle(), Skips(), 3)
    return small_model(SHAPE), Maker(Words(SIDE), SHAPE), {picture.name: picture for picture in pictures}


def make(shard):
    time.sleep(float(os.environ.get("SHARD_SLEEP", 0)))
    model, maker, pictures = kit()
    return generate.generate(model, maker, [pictures[name] for name in shard["pictures"]], 0)


def run(root, per_shard=3, engine="serial"):
    jobs = [{"name": "all", "pictures": NAMES}]
    return generate.run_shards(make, jobs, per_shard, stage="demo", key={}, root=Path(root), engine=engine)[0]
