"""The survey's Table 1 and published results as data: schema and enum checks, what is unverified marked as such."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmlib.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

MODELS = Path(__file__).with_name("models.csv")  # 33: 23 of Table 1, 7 of the text, 3 that the survey does not have
RESULTS = Path(__file__).with_name("results.csv")  # 176 published numbers
TOKENS = {"region", "grid", "patch", "region + object tags", "region + grid", "patch or grid", "discrete codes"}
FUSIONS = {"single stream", "dual stream", "dot product", "single stream (mixture of modality experts)",
           "tower + cross-attention + decoder"}  # fmt: skip
GROUPS = {"fusion encoder", "dual encoder", "fusion + dual encoder", "generation"}
YEARS = {2019, 2020, 2021, 2022}
EMBEDDINGS = {"region", "grid", "linear patch", "patch", "patch/grid"}
ENUMS = {
    MODELS: {"survey_group": GROUPS, "image_tokens": TOKENS, "fusion_scheme": FUSIONS, "year": YEARS},
    RESULTS: {"visual_embedding": EMBEDDINGS},
}  # fmt: skip
KEYS = {MODELS: ["model"], RESULTS: ["model", "metric", "source"]}
UNVERIFIED = "unverified background knowledge"


def read(path: Path) -> DataFrame:
    """A table; for models also `in_table` (a row of Table 1) and `unverified` (some cell of the row was not looked up).

    Raises:
        UserError: a row without a source, a value outside of its enumeration, or a key that stands twice.
    """
    import pandas

    frame = pandas.read_csv(path)
    if frame["source"].isna().any():
        raise UserError(f"{path.name} has a row without a source", "name it")
    for column, allowed in ENUMS.get(path, ENUMS[MODELS if "survey_group" in frame else RESULTS]).items():
        if alien := sorted(set(frame[column].dropna()) - allowed):
            raise UserError(f"{path.name}: `{alien[0]}` is no value of `{column}`", f"choose from {sorted(allowed)}")
    twice = frame.duplicated(KEYS[MODELS if "survey_group" in frame else RESULTS])
    if twice.any():
        raise UserError(f"{path.name}: {frame[twice].iloc[0]['model']} stands twice", "remove one of the rows")
    if "survey_group" not in frame:
        return frame
    cells = frame[["downstream_source", "source", "note"]].fillna("").agg(" ".join, axis=1)
    return frame.assign(in_table=frame["source"].str.endswith("Table 1"), unverified=cells.str.contains(UNVERIFIED))


def by_task(models: DataFrame) -> DataFrame:
    """One row per model and pre-training task."""
    parts = models.assign(task=models["pretraining_tasks"].str.split("+", regex=False)).explode("task")
    return parts.dropna(subset="task")


def wide(results: DataFrame, metrics: list[str]) -> DataFrame:
    """Rows that have all of the metrics, per model: columns `visual_embedding` and the metrics."""
    part = results[results["metric"].isin(metrics) & results["source"].str.contains("2102.03334")]
    return (
        part.pivot_table(index=["model", "visual_embedding"], columns="metric", values="value").dropna().reset_index()
    )


def front(frame: DataFrame, cost: str, gain: str) -> DataFrame:
    """Rows that no other row beats: as cheap and better, or cheaper and as good."""
    beaten = [
        ((frame[cost] <= row[cost]) & (frame[gain] >= row[gain])
         & ((frame[cost] < row[cost]) | (frame[gain] > row[gain]))).any()
        for _, row in frame.iterrows()
    ]  # fmt: skip
    return frame[[not b for b in beaten]].sort_values(cost)
