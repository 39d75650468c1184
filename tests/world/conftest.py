"""A renderer on the repository's own data, where it is assembled."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmlib.world.render import Renderer

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def renderer():
    if not (DATA / "openmoji/svg.zip").is_file():
        pytest.fail("data/ is missing: run `python -m mmlib fetch`")
    return Renderer(DATA)
