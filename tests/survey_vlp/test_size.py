"""The study stays small: lines of code that experiments share, and of each experiment, as its front page says."""

from __future__ import annotations

import re
from pathlib import Path

import mmlib.survey_vlp
from tests.code_lines import code_lines

FOLDER = Path(mmlib.survey_vlp.__file__).parent
SHARED = {"resources", "scenes", "questions", "encoder", "records"}
# How many of V1 to V9 each holds.
EXPERIMENTS = {"towers": 2, "fusion": 2, "tasks": 2, "masks": 1, "answers": 2, "controls": 2}


def test_code_lines_are_counted_as_they_say():
    assert code_lines('"""Doc."""\n\n# a\nx = [\n    1,\n]\n\ndef f():\n    """Two\n    lines."""\n    return x\n') == 5


def test_what_experiments_share_and_what_each_adds_stays_small():
    sizes = {path.stem: code_lines(path.read_text()) for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert set(sizes) == SHARED | set(EXPERIMENTS)
    shared = sum(sizes[name] for name in SHARED)
    own = sum(sizes[name] for name in EXPERIMENTS)
    assert shared <= 600 and all(sizes[name] <= 110 * count for name, count in EXPERIMENTS.items()), sizes
    said = re.search(r"(\d+) lines of code are shared, (\d+) belong", mmlib.survey_vlp.__doc__)
    assert said and tuple(map(int, said.groups())) == (shared, own), (shared, own)


def test_shared_modules_are_shared():
    """Each shared module that experiments import is imported by two of them at least."""
    sources = {name: (FOLDER / f"{name}.py").read_text() for name in EXPERIMENTS}
    for name in SHARED - {"resources"}:  # tables are read by notebooks
        assert sum(name in text.split("def ")[0] for text in sources.values()) >= 2, name
