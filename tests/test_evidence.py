"""Evidence refuses what could not be paired later."""

from __future__ import annotations

import pytest

from mmlib.errors import UserError
from mmlib.evidence import Evidence


@pytest.fixture
def evidence():
    made = Evidence("demo", "demo-stage")
    made.units("icl", ["a/1", "a/2"], asked=3)
    made.metric("em", units="icl", higher_is_better=True, floor=0.0)
    return made


def test_values_are_stored_per_arm_and_seed(evidence):
    evidence.add("em", arm="16-bit", seed=None, values=[1.0, 0.0])
    evidence.add("em", arm="w2", seed=3, values=[0.0, 0.0])
    stored = evidence.as_dict()
    assert stored["metrics"]["em"]["values"] == {"16-bit": {"-": [1, 0]}, "w2": {"3": [0, 0]}}
    assert stored["n_asked"] == {"icl": 3} and stored["units"] == {"icl": ["a/1", "a/2"]}


def test_faults_are_refused(evidence):
    with pytest.raises(UserError, match="unit x of `other` appears twice"):
        evidence.units("other", ["x", "x"], asked=2)
    with pytest.raises(UserError, match="1 values for 2 units"):
        evidence.add("em", arm="w2", seed=0, values=[1.0])
    evidence.add("em", arm="w2", seed=0, values=[1.0, 0.0])
    with pytest.raises(UserError, match="added twice"):
        evidence.add("em", arm="w2", seed=0, values=[1.0, 0.0])
