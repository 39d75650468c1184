"""Frames of real video files: which ones, through which decoder, and what is wrong with a file.

Sampling is the group's rule: T equal segments, a random frame of each for training and the middle one for tests; a
clip that is too short repeats its last frame. A decoder counts and reads frames; two are here, through Pillow: folders
of frames (MSRVTT and MSVD as the group keeps them) and animated pictures (TGIF). Any other library that can do those
two things can be passed instead.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from mmlib.errors import UserError
from mmlib.formats.reading import Broken, Skips
from mmlib.formats.video import CaptionedVideo, VideoQuestion

if TYPE_CHECKING:
    import numpy as np

Row = TypeVar("Row", CaptionedVideo, VideoQuestion)
PICTURES = (".jpg", ".jpeg", ".png")
ANIMATIONS = (".gif", ".webp", ".apng")
# What Pillow raises for torn or foreign files (its own error for the unidentified is an OSError).
DAMAGE = (OSError, SyntaxError, EOFError, ValueError, IndexError, struct.error)


def segments(count: int, available: int, draw: random.Random | None = None) -> list[int]:
    """Numbers of `count` frames of a clip that has `available`.

    Args:
        draw: for training, a random frame of each segment; None, for tests: the middle one.
    Raises:
        UserError: nothing is asked for, or the clip is empty.
    """
    if count < 1 or available < 1:
        raise UserError(f"{count} frames of a clip of {available}", "ask for at least one frame of a clip that has one")
    if count > available:
        return [*range(available), *[available - 1] * (count - available)]
    edges = [i * available // count for i in range(count + 1)]
    if draw is None:
        return [int((i + 0.5) * available / count) for i in range(count)]
    return [draw.randrange(low, high) for low, high in itertools.pairwise(edges)]


class Decoder(Protocol):
    """Counts and reads frames of one video; raises `Broken` for a file that cannot be used."""

    def count(self, path: Path) -> int:
        """How many frames."""

    def read(self, path: Path, numbers: list[int]) -> np.ndarray:
        """Those frames, uint8 (T, H, W, 3)."""


class Folder:
    """A folder of pictures, one a frame, in the order of their names."""

    def count(self, path: Path) -> int:
        """Pictures in the folder."""
        return len(self._frames(path))

    def read(self, path: Path, numbers: list[int]) -> np.ndarray:
        """Frames of equal size; a repeated number is read once."""
        frames = self._frames(path)
        return _stack([_open(frames[number]) for number in numbers])

    def _frames(self, path: Path) -> list[Path]:
        return sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)


class Animation:
    """GIF, WebP or APNG through Pillow."""

    def count(self, path: Path) -> int:
        """Frames of the animation."""
        from PIL import Image

        try:
            with Image.open(path) as image:
                return getattr(image, "n_frames", 1)
        except DAMAGE as error:
            raise Broken("unreadable") from error

    def read(self, path: Path, numbers: list[int]) -> np.ndarray:
        """Frames composed onto what stood before them, as a viewer shows them."""
        from PIL import Image

        try:
            with Image.open(path) as image:
                shown = {}
                for number in sorted(set(numbers)):
                    image.seek(number)
                    shown[number] = image.convert("RGB")
        except DAMAGE as error:
            raise Broken("unreadable") from error
        return _stack([shown[number] for number in numbers])


def _open(path: Path) -> object:
    from PIL import Image

    try:
        return Image.open(path).convert("RGB")
    except DAMAGE as error:
        raise Broken("unreadable") from error


def _stack(images: list) -> np.ndarray:
    import numpy as np

    if len({image.size for image in images}) > 1:
        raise Broken("frames of different sizes")
    return np.stack([np.asarray(image) for image in images])


def decoder_for(path: Path) -> Decoder:
    """By what the path is.

    Raises:
        UserError: a kind of file that no decoder here reads.
    """
    if path.is_dir():
        return Folder()
    if path.suffix.lower() in ANIMATIONS:
        return Animation()
    raise UserError(f"no decoder for {path.name}", "pass a decoder, or extract its frames into a folder")


@dataclass(frozen=True)
class Video:
    """Sampled frames of one video, uint8 (T, H, W, 3), and which they are."""

    video_id: str
    frames: np.ndarray
    numbers: list[int]


def read_videos(
    paths: dict[str, Path], count: int, skips: Skips, draw: random.Random | None = None, decoder: Decoder | None = None
) -> Iterator[Video]:
    """`count` frames of every video that can be read; the others are counted with their reason, and the run goes on.

    Args:
        paths: video id -> file or folder.
        skips: also counts clips that are shorter than `count` (they are kept: their last frame repeats).
        decoder: for all paths; None: by what each path is.
    """
    for name, path in paths.items():
        try:
            video = _read(name, path, count, draw, decoder)
        except Broken as error:
            skips.note(str(error), name)
            continue
        if len(set(video.numbers)) < count:
            skips.note(f"fewer than {count} frames", name)
        skips.read += 1
        yield video


def with_frames(
    rows: Iterable[Row], folder: Path, count: int, skips: Skips, draw: random.Random | None = None
) -> Iterator[tuple[Row, Video]]:
    """Rows of a data set's reader (captions, questions: `mmlib.formats.video`), each with frames of its video.

    Rows of one video that follow each other share one reading of it, so questions of a test cost one decoding a video;
    rows without captions, with an unreadable or a missing video are counted, and the run goes on.

    Args:
        folder: holds `<video id>.gif` (WebP, APNG) or a folder of frames `<video id>/` for every video.
        draw: for training; frames are then drawn anew whenever another video comes.
    """
    last, video = None, None
    for row in rows:
        if row.video_id != last:
            last = row.video_id
            video = next(read_videos({last: find_video(folder, last)}, count, skips, draw), None)
        if getattr(row, "captions", True) == ():
            skips.note("no caption", last)
        elif video is None:
            skips.note("row without its video", last)
        else:
            yield row, video


def find_video(folder: Path, name: str) -> Path:
    """The folder of frames or the file of a video; where there is neither, the path that does not exist."""
    paths = [folder / name, *(folder / f"{name}{suffix}" for suffix in ANIMATIONS)]
    return next((path for path in paths if path.exists()), paths[0])


def _read(name: str, path: Path, count: int, draw: random.Random | None, decoder: Decoder | None) -> Video:
    if not path.exists():
        raise Broken("no file")
    decoder = decoder or decoder_for(path)
    available = decoder.count(path)
    if not available:
        raise Broken("no frames")
    numbers = segments(count, available, draw)
    return Video(name, decoder.read(path, numbers), numbers)


def fit_square(frames: np.ndarray, side: int) -> np.ndarray:
    """Shorter side to `side`, middle square, as CLIP's preprocessing: uint8 (T, side, side, 3)."""
    import numpy as np
    from PIL import Image

    height, width = frames.shape[1:3]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    box = (left, top, left + side, top + side)
    shrunk = (Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC).crop(box) for frame in frames)
    return np.stack([np.asarray(frame) for frame in shrunk])
