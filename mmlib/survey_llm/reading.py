"""What the reports share: levels with intervals, verdicts in the survey's words, live runs against the stored band."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmlib import store
from mmlib.errors import UserError
from mmlib.stats import mean_interval

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

# The ledger's verdicts as a reader of the survey would say them.
WORDS = {
    "reproduced": "holds",
    "consistent-at-reduced-scale": "holds",
    "direction-only": "holds in part",
    "not-reproduced": "fails here",
    "contradicted": "fails here",
    "inconclusive": "undecided",
    "stale": "undecided",
    "not-attempted": "not tried",
}


def rows(root: Path, *prefixes: str) -> list[dict[str, Any]]:
    """Ledger rows of this study whose id begins with one of the prefixes, in their order."""
    ledger = store.read_json(root / "results/survey_llm/summary_verdicts.json")
    return [row for row in ledger if row["id"].startswith(prefixes)]


def verdicts(found: list[dict[str, Any]]) -> str:
    """Markdown: what the survey says, the effect, what it comes to here, and why."""
    lines = [
        "| claim | statement | survey | effect [95 %] | n, seeds | here | ledger |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        effect = "–" if row["effect"] is None else f"{row['effect']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
        unit = {"matrix": "matrices"}.get(row["unit"], row["unit"] + "s" * (row["n_used"] != 1))
        counts = f"{row['n_used']} {unit}, {row['seeds']}"
        why = f"{row['verdict']}: {row['reason']}"
        cells = [row["id"], row["statement"], row["place"], f"{effect} {row['effect_unit']}", counts]
        lines.append(f"| {' | '.join(cells)} | **{WORDS[row['verdict']]}** | {why} |")
    return "\n".join(lines)


def predicted(root: Path, first: str) -> str:
    """Markdown: the comment above the card `first` in the file of claims, told apart by when it was written.

    What follows `LATER:` was added after a result, `NOT PREDICTED:` opens a group whose outcome was known; all else was
    written before the run.

    Raises:
        UserError: no such card, or no comment above it.
    """
    lines = (root / "claims/survey_llm.yaml").read_text().splitlines()
    at = next((i for i, line in enumerate(lines) if line.strip() == f"- id: {first}"), 0)
    start = at
    while start and lines[start - 1].startswith("  #"):
        start -= 1
    if start == at:
        raise UserError(f"claims/survey_llm.yaml has no card {first} below a comment", "name a group's first card")
    comment = " ".join(line.strip(" #") for line in lines[start:at])
    before, _, later = comment.partition("LATER: ")
    known = before.startswith("NOT PREDICTED: ")
    label = "Known before, not predicted" if known else "Written before the run"
    parts = [f"**{label}:** {before.removeprefix('NOT PREDICTED: ').strip()}"] + [f"**Added later:** {later}"] * bool(
        later
    )
    return "\n\n".join(parts) + "\n\n"


def levels(evidence: dict[str, Any], metric: str, scale: float = 1.0) -> DataFrame:
    """One row per arm: `arm, value, low, high, n, seeds`, 95 % over units and seeds, times `scale`."""
    import pandas

    declared = evidence["metrics"][metric]
    units, found = evidence["units"][declared["units"]], []
    for arm, seeds in declared["values"].items():
        interval = mean_interval(scale * np.array(list(seeds.values()), dtype=float), strata=units)
        found.append({"arm": arm, "value": interval.effect, "low": interval.low, "high": interval.high,
                      "n": interval.n, "seeds": interval.seeds})  # fmt: skip
    return pandas.DataFrame(found)


def check_band(name: str, live: float, stored: list[float], slack: float) -> str:
    """A live value must lie within the range of the stored seeds, widened by `slack`.

    Raises:
        UserError: it does not; code and stored results belong to different states.
    """
    low, high = min(stored) - slack, max(stored) + slack
    if not low <= live <= high:
        remedy = "run `make reproduce`: the stored results are of another state"
        raise UserError(f"{name} is {live:.4g} live, outside [{low:.4g}, {high:.4g}] of the stored runs", remedy)
    return f"{name}: {live:.4g} live, stored {min(stored):.4g} to {max(stored):.4g} ({len(stored)} runs)"
