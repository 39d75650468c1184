"""Pictures a second: drawn, rendered, stored, read, and what CLIP takes in: `python -m benchmarks.world`.

Not a test: machines differ. What must hold is the ratio in one run: making pictures is not the bottleneck.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlib import store


def main() -> None:
    """Print pictures a second for each step, with the tower's and CLIP's own pace beside them."""
    import torch

    from mmlib.models import clip
    from mmlib.world import shards, vocabulary
    from mmlib.world.render import Renderer
    from mmlib.world.scenes import draw_scenes

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=9600)
    parser.add_argument("--steps", type=int, default=30, help="training steps of CLIP")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    renderer, batch = Renderer(store.project_root() / "data"), 192
    scenes = _rate("scene graphs drawn", arguments.scenes, lambda: draw_scenes("train", arguments.scenes, 0))
    renderer.render_all(scenes[:2000])  # rasterises the art, once a process
    images = _rate("rendered", len(scenes), lambda: renderer.render_all(scenes))
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(scene.id, image) for scene, image in zip(scenes, images, strict=True)]
        _rate("written to Arrow", len(scenes), lambda: shards.write_pictures(Path(folder), pairs))
        _rate("read from Arrow", len(scenes), lambda: [p.sum() for p in shards.Pictures(Path(folder)).values()])
    tokenizer = vocabulary.build_tokenizer()
    model = clip.build_clip(tokenizer, 128, 3, 21, 0)
    settings = {"texts": 1, "steps": arguments.steps, "batch": batch, "learning_rate": 1e-3, "muon_learning_rate": 1e-3}
    _rate("encoded by the tower", 1920, lambda: [_encode(model, images[i : i + batch]) for i in range(0, 1920, batch)])
    train = lambda: clip.train_clip(model, tokenizer, scenes, renderer, settings, 0)  # noqa: E731
    _rate("trained on by CLIP", arguments.steps * batch, train)


def _encode(model: Any, images: Any) -> None:
    import torch

    from mmlib.models.clip import pixels

    with torch.inference_mode():
        model.vision_model(pixels(images))


def _rate(name: str, count: int, work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    made = work()
    print(f"{name:22s}{count / (time.perf_counter() - started):10,.0f} pictures/s", flush=True)
    return made


if __name__ == "__main__":
    main()
