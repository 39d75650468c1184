"""What was predicted before the runs, beside what came out: met, missed, or left open by the interval.

The predictions stand in the comments of claims/survey_llm.yaml, committed before the runs; predictions.csv holds those
of them that name a bound or a direction, each with the card, or the level of an arm, that it is about.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib import store
from mmlib.errors import UserError
from mmlib.survey_llm import reading

if TYPE_CHECKING:
    from pandas import DataFrame

FILE = Path(__file__).with_name("predictions.csv")
OUTCOMES = ("missed", "open", "met")


def outcome(low: float, high: float, at_least: float, at_most: float) -> str:
    """Of an interval [low, high] against a predicted range: within it, beyond it, or neither."""
    if at_least <= low and high <= at_most:
        return "met"
    return "missed" if high < at_least or low > at_most else "open"


def table(root: Path) -> DataFrame:
    """The predictions with `value`, `from`, `to` (95 %), `unit` and `outcome`, in the order of OUTCOMES.

    Raises:
        UserError: a prediction about a card or an arm that does not exist.
    """
    import pandas

    found = pandas.read_csv(FILE, dtype={"evidence": str, "card": str})
    cards = {row["id"]: row for row in reading.rows(root, "L")}
    measured = [_measured(root, cards, row) for row in found.to_dict("records")]
    found[["value", "from", "to", "unit"]] = pandas.DataFrame(measured)
    ends = found[["from", "to"]].assign(low=found["low"].fillna(-float("inf")), high=found["high"].fillna(float("inf")))
    found["outcome"] = [outcome(*row) for row in ends[["from", "to", "low", "high"]].to_numpy()]
    order = found["outcome"].map(OUTCOMES.index)
    return found.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def _measured(root: Path, cards: dict[str, Any], row: dict[str, Any]) -> tuple[float, float, float, str]:
    if isinstance(row["card"], str):
        if row["card"] not in cards:
            raise UserError(f"predictions.csv names the card {row['card']}, which is none", f"correct {FILE.name}")
        card = cards[row["card"]]
        ends = [float("nan") if card[name] is None else card[name] for name in ("effect", "low", "high")]
        return (*ends, card["effect_unit"])
    evidence = store.read_json(root / "results/survey_llm" / f"evidence_{row['evidence']}.json")
    levels = reading.levels(evidence, row["metric"], row["scale"]).set_index("arm")
    if row["arm"] not in levels.index:
        raise UserError(f"predictions.csv names the arm {row['arm']}, which is none", f"correct {FILE.name}")
    level = levels.loc[row["arm"]]
    return level["value"], level["low"], level["high"], row["unit"]


def markdown(found: DataFrame) -> str:
    """One line per prediction."""
    lines = ["| | predicted | measured [95 %] | about | |", "|---|---|---|---|---|"]
    for row in found.to_dict("records"):
        about = row["card"] if isinstance(row["card"], str) else f"{row['arm']}, {row['metric']}"
        measured = f"{row['value']:+.3g} [{row['from']:+.3g}, {row['to']:+.3g}] {row['unit']}"
        lines.append(f"| {row['experiment']} | {row['predicted']} | {measured} | {about} | **{row['outcome']}** |")
    return "\n".join(lines)
