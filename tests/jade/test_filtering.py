"""Each rule drops what it names; precision by hand; a filter that only changes the mix of types gains nothing."""

from __future__ import annotations

import pytest

from mmlib.jade import filtering, precision
from mmlib.jade.filtering import Counts
from mmlib.jade.truth import PRESUPPOSITION, RIGHT, WRONG


def row(question="where is the dog ?", answer="north", prob=0.5, **more):
    return {"question": question, "answer": answer, "prob": prob, "type": "where", "filter_answer": answer, **more}


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
    same, other = row(answer="two", filter_answer="2"), row(filter_answer="south")
    absent = row(answer="absent", filter_answer="absent")
    assert kept(filtering.consistency(), same, other, absent) == [same]


def test_vocabulary_probability_oracle_unique():
    assert kept(filtering.vocabulary(frozenset({"2"})), row(answer="two"), row()) == [row(answer="two")]
    assert kept(filtering.threshold(0.6), row(), row(prob=0.6)) == [row(prob=0.6)]
    assert kept(filtering.oracle(lambda picture, r: r["answer"] == "north"), row(), row(answer="x")) == [row()]
    assert kept(filtering.unique(), row(), row(prob=0.9), row(answer="x")) == [row(), row(answer="x")]


def test_a_random_subset_is_exactly_as_large_as_asked():
    rows = [row(f"q{i} ?") for i in range(100)]
    limit = filtering.limit_for((filtering.lot("p", r, 3) for r in rows), 37, largest=False)
    chosen = kept(filtering.random_subset(limit, 3), *rows)
    assert len(chosen) == 37 and chosen != rows[:37]
    assert filtering.limit_for([0.1, 0.9, 0.5], 2, largest=True) == 0.5
    with pytest.raises(ValueError, match="cannot keep"):
        filtering.limit_for([1.0], 2, largest=True)


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


def test_precision_and_its_parts():
    raw = judged("what", 4, 4, 2) + judged("how", 8, 2)
    report = precision.report(judged("what", 4, 1, 1) + judged("how", 4, 0), raw)
    assert report["kept"] == 0.5 and report["precision"] == 0.8
    assert report["share false presupposition"] == pytest.approx(0.1)
    assert report["kept of false presupposition"] == 0.5 and report["kept of right"] == pytest.approx(8 / 12)
    assert report["standardised"] == pytest.approx((4 / 6 + 1) / 2)
    assert report["type entropy"] == pytest.approx(0.97095, abs=1e-4)


def test_a_filter_that_only_changes_the_mix_gains_nothing_when_standardised():
    raw = judged("what", 20, 80) + judged("how", 80, 20)
    mix = judged("what", 2, 8) + judged("how", 80, 20)
    assert precision.precision(mix) > precision.precision(raw) + 0.2
    assert precision.standardised(mix, raw) == pytest.approx(precision.precision(raw))
    only = judged("how", 8, 2)
    assert precision.covered(only, raw) == 0.5 and precision.standardised(only, raw) == pytest.approx(0.8)


def test_bands_of_frequent_answers():
    raw = [{"answer": "a"}] * 98 + [{"answer": "b"}] * 2
    groups = precision.bands(raw, raw)
    assert [len(rows) for rows in groups.values()] == [0, 2, 0, 98]
