"""Each rule drops what it names; precision by hand; a filter that only changes the mix of types gains nothing."""

from __future__ import annotations

import pytest

from mmlib.jade import filtering, precision
from mmlib.jade.filtering import Counts
from mmlib.jade.truth import PRESUPPOSITION, RIGHT, WRONG


def row(question="where is the dog ?", answer="north", prob=0.5, **more):
    return {"question": question, "answer": answer, "prob": prob, "type": "where",
            "filter": {"independent": [answer, 0.5]}, "exists": "yes", "verdict": RIGHT, **more}  # fmt: skip


def answered(answer, said):
    return row(answer=answer, filter={"independent": [said, 0.5]})


def kept(rule, *rows):
    return rule.keep("p", list(rows))


@pytest.mark.parametrize(
    "bad",
    [row("where [unused1] ?"), row(answer="[unused1]"), row(prob=0.0), row("north", "north"), row(""), row(answer=""),
     row(ended=False)],
)  # fmt: skip
def test_sanity(bad):
    assert kept(filtering.sanity(), bad, row()) == [row()]


def test_consistency_compares_what_vqa_compares_and_absent_agrees_with_nothing():
    same, other, absent = answered("two", "2"), answered("north", "south"), answered("absent", "absent")
    assert kept(filtering.consistency(), same, other, absent) == [same]


def test_existence_drops_what_is_denied_and_nothing_that_was_not_asked():
    rows = [row(exists="yes"), row(exists=""), row(exists="red"), row(exists="no")]
    assert kept(filtering.existence(), *rows) == rows[:3]


def test_oracle_and_unique():
    assert kept(filtering.oracle(), row(), row(verdict=WRONG)) == [row()]
    assert kept(filtering.unique(), row(), row(prob=0.9), row(answer="x")) == [row(), row(answer="x")]


def test_the_best_are_exactly_as_many_as_asked_and_ties_are_drawn():
    rows = [row(f"q{i} ?", prob=round(i / 100, 1)) for i in range(100)]
    score = filtering.tie(lambda picture, one: one["prob"], 3)
    chosen = kept(filtering.best("x", score, [("p", rows)], 37), *rows)
    assert len(chosen) == 37 and min(one["prob"] for one in chosen) == 0.6
    assert {one["question"] for one in chosen if one["prob"] == 0.6} != {f"q{i} ?" for i in range(58, 65)}
    other = kept(filtering.best("x", filtering.tie(lambda p, one: one["prob"], 4), [("p", rows)], 37), *rows)
    assert chosen != other and kept(filtering.best("x", score, [("p", rows)], 0), *rows) == []
    lots = kept(filtering.best("x", lambda p, one: filtering.lot(p, one, 3), [("p", rows)], 37), *rows)
    assert len(lots) == 37 and lots != rows[:37]


def test_binary_quota_balances_and_limits():
    def picture(name, yes, no, others):
        rows = [row(f"yes {name} {i}", "yes") for i in range(yes)] + [row(f"no {name} {i}", "no") for i in range(no)]
        return name, rows + [row(f"q {name} {i}") for i in range(others)]

    pictures = [picture(f"p{i}", 6, 2, 40) for i in range(200)] + [picture("lonely", 4, 4, 0)]
    shares = filtering.balance(pictures)
    assert shares["no"] == 1 and shares["yes"] == pytest.approx(404 / 1204)
    counts = Counts()
    result = dict(filtering.stream(pictures, [filtering.binary_quota(shares, 0)], counts))
    binary = {name: [r["answer"] for r in rows if r["answer"] in ("yes", "no")] for name, rows in result.items()}
    assert max(map(len, binary.values())) == 4 and result["lonely"] == []
    said = [answer for answers in binary.values() for answer in answers]
    assert said.count("yes") / len(said) == pytest.approx(0.5, abs=0.06)
    assert counts.kept["binary quota"] == sum(map(len, result.values()))


def judged(kind, right, wrong, absent=0):
    verdicts = [RIGHT] * right + [WRONG] * wrong + [PRESUPPOSITION] * absent
    return [{"type": kind, "verdict": verdict, "answer": kind, "question": "q"} for verdict in verdicts]


def test_precision_and_shares():
    rows = judged("what", 4, 1, 1) + judged("how", 4, 0)
    assert precision.precision(rows) == 0.8
    assert precision.shares(rows)[PRESUPPOSITION] == pytest.approx(0.1)
    assert precision.entropy(row["type"] for row in rows) == pytest.approx(0.97095, abs=1e-4)
    with pytest.raises(ValueError, match="no rows"):
        precision.precision([])


def test_bands_of_frequent_answers():
    raw = [{"answer": "a"}] * 98 + [{"answer": "b"}] * 2
    groups = precision.bands(raw, raw)
    assert [len(rows) for rows in groups.values()] == [0, 2, 0, 98]
