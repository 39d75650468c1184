"""The survey's tables: counts that the fact sheet gives, and a planted fault for each check."""

from __future__ import annotations

import pandas
import pytest

from mmlib.errors import UserError
from mmlib.survey_vlp import resources as r


def test_counts_of_table_1():
    models = r.read(r.MODELS)
    table = models[models["in_table"]]
    assert (len(models), len(table), len(r.read(r.RESULTS)), models["unverified"].sum()) == (33, 23, 176, 8)
    tasks = r.by_task(table)["task"].value_counts()
    assert tasks[["MLM", "ITM", "CMCL", "MRC", "MRFR"]].tolist() == [18, 14, 8, 6, 4]
    assert table["survey_group"].value_counts().to_dict() == {
        "fusion encoder": 18, "dual encoder": 3, "fusion + dual encoder": 2,
    }  # fmt: skip
    used = [table["pretraining_data"].str.contains(name).sum() for name in ("COCO", "CC", "VG", "SBU")]
    assert used == [14, 13, 11, 8]


def test_the_front_of_accuracy_and_latency():
    rows = r.wide(r.read(r.RESULTS), ["latency_ms", "VQAv2_test_dev"])
    best = r.front(rows, "latency_ms", "VQAv2_test_dev")["model"].tolist()
    assert best == ["ViLT-B/32 +aug +200K", "Pixel-BERT-R50", "Pixel-BERT-X152", "VinVL-Base"]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("source", None, "without a source"),
        ("image_tokens", "regions", "is no value of `image_tokens`"),
        ("year", 2018, "is no value of `year`"),
        ("model", "UNITER", "stands twice"),
    ],
)
def test_a_planted_fault_is_refused(tmp_path, column, value, message):
    frame = pandas.read_csv(r.MODELS)
    frame.loc[0, column] = value
    frame.to_csv(tmp_path / "models.csv", index=False)
    with pytest.raises(UserError, match=message):
        r.read(tmp_path / "models.csv")
