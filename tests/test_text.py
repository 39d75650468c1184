"""Calibration and test text: disjoint, fixed by seed, and a leak trips."""

from __future__ import annotations

import json

import pytest
import torch

from mmlib import text
from mmlib.errors import UserError


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / text.DOCSTRINGS
    path.parent.mkdir(parents=True)
    packages = [p for part in text.PARTS.values() for p in part]
    rows = [
        {"package": p, "module": "m", "name": f"f{i}", "text": f"{p} number {i} " + f"word{i} is a word. " * 20}
        for p in packages
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_parts_are_disjoint_and_unknown_parts_refused(corpus):
    calibration, test = text.documents(corpus, "calibration"), text.documents(corpus, "test")
    assert calibration and test and not set(calibration) & set(test)
    with pytest.raises(UserError, match="unknown text part `train`"):
        text.documents(corpus, "train")
    with pytest.raises(UserError, match="mmlib fetch"):
        text.documents(corpus / "nowhere", "test")


def test_windows_are_fixed_by_seed(corpus, tokenizer):
    documents = text.documents(corpus, "test")
    one = text.windows(tokenizer, documents, 4, 32, seed=0)
    assert one.shape == (4, 32) and torch.equal(one, text.windows(tokenizer, documents, 4, 32, seed=0))
    assert not torch.equal(one, text.windows(tokenizer, documents, 4, 32, seed=1))
    with pytest.raises(UserError, match="only 0 documents reach"):
        text.windows(tokenizer, documents, 4, 10_000, seed=0)


def test_overlap_of_calibration_and_test_text_trips():
    test = torch.arange(200).view(2, 100)
    clean = torch.arange(1000, 1200).view(2, 100)
    text.refuse_overlap(clean, test)
    leak = clean.clone()
    leak[1, 20:68] = test[1, 3:51]
    with pytest.raises(UserError, match="test window 1 shares 48 tokens"):
        text.refuse_overlap(leak, test)
    leak[1, 67] = 5000  # one token short of a span
    text.refuse_overlap(leak, test)
