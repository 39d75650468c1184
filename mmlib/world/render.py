"""Drawing scenes: OpenMoji art rasterised once, composited in integers, 72 x 72 pixels."""

from __future__ import annotations

import io
import zipfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.world.nouns import COLOURS, FLAT, PHOTOS, SIZES, by_name
from mmlib.world.scenes import PLATE, SIDE, Placed, Scene

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

INK, BOARD = (20, 20, 20), (250, 250, 250)
RASTER = 288  # pixels of the first, large drawing
# As dvc.yaml names them, so that a test can see that every stage which draws depends on them.
DRAWINGS, PHOTOGRAPHS = "data/openmoji/svg.zip", "data/photos"
PHOTO_SIDE = 256  # photographs are shrunk to this, so that a crop shows texture


class Renderer:
    """Draws scenes; sprites, plates and grounds are made at first use and kept.

    Args:
        data: the folder data/ of the repository.
    """

    def __init__(self, data: Path) -> None:
        self.data = Path(data)
        self._sprites: dict[tuple[str, int, int], np.ndarray] = {}
        self._tiles: dict[tuple[str, str, str], np.ndarray] = {}
        self._grounds: dict[str, np.ndarray] = {}
        self._boards: dict[str, np.ndarray] = {}
        self._large: dict[str, Image.Image] = {}

    def sprite(self, noun: str, pixels: int, turn: int = 0) -> np.ndarray:
        """Premultiplied RGBA of the drawing, uint8 (pixels, pixels, 4), turned clockwise by `turn` eighths.

        Raises:
            UserError: the noun has no drawing, or its drawing does not parse.
        """
        if (noun, pixels, turn) not in self._sprites:
            self._sprites[noun, pixels, turn] = self._rasterise(noun, pixels, turn)
        return self._sprites[noun, pixels, turn]

    def render(self, scene: Scene) -> np.ndarray:
        """uint8 (72, 72, 3)."""
        return self.render_all([scene])[0]

    def render_all(self, scenes: list[Scene]) -> np.ndarray:
        """uint8 (N, 72, 72, 3)."""
        import numpy as np

        images = np.empty((len(scenes), SIDE, SIDE, 3), np.uint8)
        for canvas, scene in zip(images, scenes, strict=True):
            self._draw(canvas, scene)
        return images

    def _draw(self, canvas: np.ndarray, scene: Scene) -> None:
        import numpy as np

        canvas[:] = self._ground(scene.background, scene.view)
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            np.copyto(canvas[y0:y1, x0:x1], self._tile(thing), where=self.disc)
        if scene.sign:
            x0, y0, x1, y1 = scene.sign.box
            canvas[y0:y1, x0:x1] = self.board(scene.sign.word)

    def ground(self, background: str, view: tuple[int, int]) -> np.ndarray:
        """A fresh canvas, uint8 (72, 72, 3): one colour, or a crop of a photograph."""
        return self._ground(background, view).copy()

    def _ground(self, background: str, view: tuple[int, int]) -> np.ndarray:
        if background not in self._grounds:
            self._grounds[background] = self._make_ground(background)
        if background in FLAT:
            return self._grounds[background]
        x, y = (value % (PHOTO_SIDE - SIDE) for value in view)
        return self._grounds[background][y : y + SIDE, x : x + SIDE]

    def _make_ground(self, background: str) -> np.ndarray:
        import numpy as np

        if background in FLAT:
            return np.full((SIDE, SIDE, 3), FLAT[background], np.uint8)
        if background in PHOTOS:
            return self._photo(PHOTOS[background])
        raise UserError(f"unknown background `{background}`", f"choose from: {', '.join((*FLAT, *PHOTOS))}")

    @cached_property
    def disc(self) -> np.ndarray:
        """Which pixels of a plate's box it covers: bool (22, 22, 1)."""
        import numpy as np

        middle = (PLATE - 1) / 2
        y, x = np.ogrid[:PLATE, :PLATE]
        return ((x - middle) ** 2 + (y - middle) ** 2 <= (PLATE / 2) ** 2)[..., None]

    def board(self, word: str) -> np.ndarray:
        """A white board with the word on it: uint8 (22, 22, 3)."""
        if word not in self._boards:
            self._boards[word] = _write(word)
        return self._boards[word]

    def _tile(self, thing: Placed) -> np.ndarray:
        key = (thing.noun, thing.size, thing.colour)
        if key not in self._tiles:
            import numpy as np

            plate = np.full((PLATE, PLATE, 3), COLOURS[thing.colour], np.uint8)
            pixels = SIZES[thing.size]
            start = (PLATE - pixels) // 2
            over(plate[start : start + pixels, start : start + pixels], self.sprite(thing.noun, pixels))
            self._tiles[key] = plate
        return self._tiles[key]

    @cached_property
    def _drawings(self) -> zipfile.ZipFile:
        path = self.data / DRAWINGS.removeprefix("data/")
        if not path.is_file():
            raise UserError(f"{path} is missing", "run `python -m mmlib fetch`")
        return zipfile.ZipFile(path)

    def _rasterise(self, noun: str, pixels: int, turn: int) -> np.ndarray:
        import numpy as np
        from PIL import Image

        if noun not in self._large:
            self._large[noun] = self._open_drawing(noun)
        image = self._large[noun].resize((4 * pixels, 4 * pixels), Image.Resampling.BOX)
        image = image.rotate(-45 * turn, Image.Resampling.BICUBIC) if turn else image
        # Four times too large and averaged: thin outlines fade evenly instead of flickering with the angle.
        return np.asarray(image.reduce(4))

    def _open_drawing(self, noun: str) -> Image.Image:
        """The drawing without its margins, in premultiplied colours so that edges keep theirs."""
        import resvg_py
        from PIL import Image

        if noun not in by_name():
            raise UserError(f"unknown noun `{noun}`", "choose one of mmlib/world/nouns.csv")
        name = f"{by_name()[noun].code}.svg"
        try:
            svg = self._drawings.read(name).decode()
            png = resvg_py.svg_to_bytes(svg_string=svg, width=RASTER, height=RASTER, skip_system_fonts=True)
        except (KeyError, ValueError) as error:
            raise UserError(f"no drawing of `{noun}` ({name}): {error}", "run `python -m mmlib fetch`") from error
        image = Image.open(io.BytesIO(bytes(png))).convert("RGBa")
        return image.crop(_square(image.getchannel("a").getbbox()))

    def _photo(self, name: str) -> np.ndarray:
        import numpy as np
        from PIL import Image

        path = self.data / PHOTOGRAPHS.removeprefix("data/") / name
        if not path.is_file():
            raise UserError(f"{path} is missing", "run `python -m mmlib fetch`")
        image = Image.open(path).convert("RGB").resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BOX)
        return np.asarray(image)


def _write(word: str) -> np.ndarray:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (PLATE, PLATE), BOARD)
    pen = ImageDraw.Draw(image)
    # The bitmap font has fixed pixels: no hinting, no anti-aliasing, the same bytes everywhere.
    pen.text((2, 5), word, INK, font=ImageFont.load_default_imagefont())
    pen.rectangle((0, 0, PLATE - 1, PLATE - 1), outline=INK)
    return np.asarray(image)


def _square(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The smallest square around a box: drawings have margins of different widths."""
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    return left, top, left + side, top + side


def over(canvas: np.ndarray, sprite: np.ndarray) -> None:
    """Composite premultiplied RGBA onto uint8 RGB of the same size, in place, in integers."""
    import numpy as np

    alpha = sprite[..., 3:].astype(np.uint16)
    canvas[:] = sprite[..., :3] + ((canvas * (255 - alpha) + 127) // 255).astype(np.uint8)
