"""Contact sheets of the world for notebooks: arrays put side by side, and shown without axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlib.world.nouns import load_nouns
from mmlib.world.render import Renderer, over

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes


def grid(images: np.ndarray, columns: int, gap: int = 4) -> np.ndarray:
    """(N, H, W, 3) -> one picture with `columns` in a row and white gaps."""
    import numpy as np

    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        sheet[y : y + height, x : x + width] = image
    return sheet


def nouns_by_category(renderer: Renderer, pixels: int = 36) -> tuple[list[str], np.ndarray]:
    """Categories, and a sheet with one row of drawings for each."""
    import numpy as np

    rows: dict[str, list[str]] = {}
    for noun in load_nouns():
        rows.setdefault(noun.category, []).append(noun.noun)
    columns = max(map(len, rows.values()))
    tiles = np.full((len(rows) * columns, pixels, pixels, 3), 255, np.uint8)
    for row, names in enumerate(rows.values()):
        for column, name in enumerate(names):
            over(tiles[row * columns + column], renderer.sprite(name, pixels))
    return list(rows), grid(tiles, columns)


def show(ax: Axes, picture: np.ndarray, title: str = "") -> None:
    """A picture without axes and with sharp pixels."""
    ax.imshow(picture, interpolation="nearest")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=8)
