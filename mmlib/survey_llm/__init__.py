"""Companion to "A Survey of Large Language Models" (arXiv 2303.18223): its tables as data, its statements as runs.

What two experiments or more use is kept small: 540 lines of code, of at most 600 (without blank lines, comments and
docstrings). Shared: `transformer` (a small decoder with exchangeable positions) · `training` (text, training, loss,
writing) · `smol` (SmolLM2 and rules by which it writes) · `resources` (the survey's tables and arithmetic) · `reading`
(what the reports share) · `predictions` (against what came out) · `frozen`, `tuning`, `real` (shards of the compute
stages, each with several experiments). All else is what one experiment is about, 1382 lines in OWN; no experiment
reaches into another one.
tests/survey_llm/test_size.py counts both and compares with the numbers here.
"""

SHARED = ("transformer", "training", "smol", "resources", "reading", "predictions", "frozen", "tuning", "real")
SHARED_LIMIT = 600  # lines of code
OWN = {
    "scaling": "L1", "emergence": "L3", "demonstrations": "L3", "parity": "L4", "thought": "L4", "positions": "L5",
    "decoding": "L6", "mixtures": "L7", "efficient": "L8", "preferences": "L9", "steering": "L9", "frontier": "L9",
    "cost": "L10", "rounding": "L10",
}  # fmt: skip
