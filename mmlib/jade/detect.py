"""Boxes: three detectors behind one interface, and the reader of files that a published detector left.

A detector maps scenes or pictures to boxes with scores, best first, in pixels of the picture. The world's own boxes are
shifted and sometimes missed or invented, because no detector is an oracle; the classical one looks at pixels alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mmlib.errors import UserError
from mmlib.formats.reading import Skips
from mmlib.world.scenes import PLATE, SIDE, Scene, plate_box

if TYPE_CHECKING:
    import numpy as np

Corners = tuple[int, int, int, int]


@dataclass(frozen=True)
class Box:
    """x0, y0, x1, y1 in pixels of the picture (x1 and y1 outside), and how sure the detector is."""

    corners: Corners
    score: float


class Detector(Protocol):
    """Finds boxes."""

    def __call__(self, scene: Scene, picture: np.ndarray) -> list[Box]:
        """Boxes of a picture uint8 (H, W, 3), best first."""


@dataclass(frozen=True)
class Oracle:
    """The world's boxes, moved by up to `jitter` pixels, each missed with one probability, empty cells added with one.

    What is drawn depends on the scene's id alone.
    """

    jitter: int = 2
    miss: float = 0.1
    invent: float = 0.05

    def __call__(self, scene: Scene, picture: np.ndarray) -> list[Box]:
        import numpy as np

        draw = np.random.default_rng(int.from_bytes(hashlib.sha256(f"box/{scene.id}".encode()).digest()[:8], "big"))
        found = [o.box for o in scene.objects if draw.random() >= self.miss]
        empty = sorted(set(range(9)) - {o.cell for o in scene.objects})
        found += [plate_box(cell, (0, 0)) for cell in empty if draw.random() < self.invent]
        moved = [
            tuple(int(v) for v in np.asarray(box) + draw.integers(-self.jitter, self.jitter + 1, 4)) for box in found
        ]
        return sorted((Box(box, float(draw.random())) for box in moved), key=lambda box: (-box.score, box.corners))


@dataclass(frozen=True)
class Plates:
    """Connected areas of nearly one color that are about as large as a plate: no learning, no truth.

    Photographic grounds, noise and stickers cost it boxes: tests and the data card say how many.
    """

    bits: int = 3  # kept of each channel
    least: int = 40  # pixels of an area

    def __call__(self, scene: Scene, picture: np.ndarray) -> list[Box]:
        import numpy as np
        from scipy import ndimage

        smooth = ndimage.median_filter(picture, size=(3, 3, 1))
        reduced = (smooth >> (8 - self.bits)).astype(np.int64)
        colours = (reduced[..., 0] << 16) + (reduced[..., 1] << 8) + reduced[..., 2]
        found = [box for value in np.unique(colours) for box in self._areas(colours == value)]
        return sorted(found, key=lambda box: (-box.score, box.corners))

    def _areas(self, mask: np.ndarray) -> list[Box]:
        import numpy as np
        from scipy import ndimage

        # A large drawing cuts its plate into pieces: those within two pixels of each other are one area.
        labels, _ = ndimage.label(ndimage.binary_dilation(mask, np.ones((3, 3))))
        labels *= mask
        boxes = []
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            corners = (columns.start, rows.start, columns.stop, rows.stop)
            sides = corners[2] - corners[0], corners[3] - corners[1]
            area = int((labels[rows, columns] == number).sum())
            if area >= self.least and all(abs(side - PLATE) <= 4 for side in sides):
                boxes.append(Box(corners, area / (sides[0] * sides[1])))
        return boxes


@dataclass(frozen=True)
class Stored:
    """Reads `<img_id>.npz` with `pred_boxes` (n, 4) and `scores` (n,), as bottom-up detectors leave them."""

    folder: Path

    def __call__(self, scene: Scene, picture: np.ndarray) -> list[Box]:
        return self.read(scene.id)

    def read(self, name: str) -> list[Box]:
        """Boxes of a picture.

        Raises:
            UserError: the file is missing, damaged, or the two arrays do not fit each other.
        """
        import zipfile

        import numpy as np

        path = self.folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                boxes, scores = arrays["pred_boxes"], arrays["scores"]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            culprit = f"{path} has no readable boxes ({type(error).__name__})"
            raise UserError(culprit, "run the detector on this picture again") from error
        if boxes.shape != (len(scores), 4):
            raise UserError(f"{path}: {boxes.shape} boxes, {len(scores)} scores", "run the detector on it again")
        order = np.argsort(-scores, kind="stable")
        return [Box(tuple(int(v) for v in np.rint(boxes[i])), float(scores[i])) for i in order]


def usable(boxes: list[Box], limit: int, skips: Skips, name: str, side: int = SIDE) -> list[Box]:
    """The `limit` best boxes, clipped to the picture; those that are empty then are left out, and all is counted.

    The released code fills up with copies of the last box: its captions are the same box again. We do not.
    """
    kept: list[Box] = []
    for box in boxes:
        corners = tuple(min(max(value, 0), side) for value in box.corners)
        if corners[0] >= corners[2] or corners[1] >= corners[3]:
            skips.note("empty box", name)
            continue
        if corners != box.corners:
            skips.note("box outside the picture clipped", name)
        kept.append(Box(corners, box.score))
    if not kept:
        skips.note("picture without a box", name)
    return kept[:limit]
