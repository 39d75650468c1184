"""Makers of data/: what they take, what they drop, and that the bytes are always the same."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zipfile

import pytest

from mmlib import corpus
from mmlib.corpus import Member

LONG = "A sentence of technical English about the shape of an array. " * 8

SOURCE = f'''
"""Module. {LONG}"""

class Estimator:
    """Class. {LONG}

    Example:
        Indented example: 1 < 2   
    """

    def fit(self):
        """Method. {LONG}"""
        def helper():
            """Local. {LONG}"""

try:
    import fast
except ImportError:
    async def slow():
        """Fallback. {LONG}"""

def copied():
    """Method. {LONG}"""

def short():
    """Too short."""

def broken():
    """Bell and form feed in \\alpha \\frac. {LONG}"""

def escaped():
    """Digits are \\d here. {LONG}"""
'''  # noqa: W291


def records(*members: Member) -> list[dict]:
    return [json.loads(line) for line in corpus.docstrings(list(members)).decode().splitlines()]


def test_docstrings_are_named_cleaned_and_sorted():
    rows = records(Member("pkg/sub/mod.py", SOURCE.encode()))
    assert [r["name"] for r in rows] == ["", "Estimator", "Estimator.fit", "escaped", "slow"]
    assert {(r["package"], r["module"]) for r in rows} == {("pkg", "pkg.sub.mod")}
    assert rows[1]["text"].splitlines()[-1] == "    Indented example: 1 < 2"  # relative indent kept, blanks not


def test_docstrings_drop_duplicates_short_broken_local_and_vendored():
    text = SOURCE.encode()
    rows = records(*(Member(f"pkg/{f}/m.py", text) for f in ("a", "tests", "externals", "_lib")))
    assert {r["module"] for r in rows} == {"pkg.a.m"}
    everything = " ".join(r["text"] for r in rows)
    assert everything.count("Method.") == 1
    assert not any(word in everything for word in ("Too short", "Local.", "Bell"))


def test_docstrings_do_not_depend_on_member_order():
    members = [Member(f"pkg/{n}.py", SOURCE.replace("Method", n).encode()) for n in "abc"]
    assert corpus.docstrings(members) == corpus.docstrings(members[::-1])
    assert records(Member("pkg/__init__.py", SOURCE.encode()))[0]["module"] == "pkg"


@pytest.mark.filterwarnings("error")
def test_old_escapes_neither_warn_nor_fail():
    assert any(r["name"] == "escaped" for r in records(Member("pkg/m.py", SOURCE.encode())))


def test_source_that_does_not_parse_is_an_error():
    with pytest.raises(SyntaxError):
        corpus.docstrings([Member("pkg/m.py", b"def f(:\n")])


@pytest.mark.parametrize("raw", ["a\tb", "a\rb", "a\x0cb", "a\x07b", "a\u2028b", "a\u00a0b", "a\ud800b"])
def test_clean_refuses_what_interpreters_treat_differently(raw):
    assert corpus.clean(raw) == ""
    assert corpus.clean("\n    first\n      second  \n    ") == "first\n  second"


def test_shard_is_sorted_stored_and_dateless():
    members = [Member("x/svg/B.svg", b"<svg/>" * 50), Member("x/svg/A.svg", b"<svg>a</svg>")]
    content = corpus.shard(members)
    assert content == corpus.shard(members[::-1])
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["A.svg", "B.svg"]
        facts = {(i.compress_type, i.date_time[0], i.create_system, i.external_attr) for i in archive.infolist()}
        assert facts == {(zipfile.ZIP_STORED, 1980, 3, 0o644 << 16)}
        assert archive.read("B.svg") == b"<svg/>" * 50


def test_elements_come_out_of_sqlite_by_number(tmp_path):
    connection = sqlite3.connect(tmp_path / "e.db")
    connection.execute("CREATE TABLE elements (name TEXT, symbol TEXT, atomic_number INTEGER, mass REAL)")
    connection.executemany("INSERT INTO elements VALUES (?, ?, ?, 0)", [("Helium", "He", 2), ("Hydrogen", "H", 1)])
    connection.commit()
    connection.close()
    table = corpus.elements([Member("e.db", (tmp_path / "e.db").read_bytes())])
    assert table == b"atomic_number,symbol,name\n1,H,Hydrogen\n2,He,Helium\n"


def test_demonyms_skip_the_nameless_and_merge_doubles():
    countries = [
        {"name": "Peru", "demonym": "Peruvian", "capital": "Lima"},
        {"name": "Peru", "demonym": "Peruvian", "capital": "Lima"},
        {"name": "Antarctica", "demonym": "", "capital": None},
        {"name": "Chad, Republic of", "demonym": "Chadian", "capital": ["A", "B"]},
    ]
    table = corpus.demonyms([Member(f"{i}.json", json.dumps(c).encode()) for i, c in enumerate(countries)])
    assert table.decode() == 'country,demonym,capital\n"Chad, Republic of",Chadian,A/B\nPeru,Peruvian,Lima\n'


def test_inflections_are_rectangular():
    lines = "cat,noun,cats\ngood,adj,better,best\ngo,verb,went,gone,going,goes\n"
    table = corpus.inflections([Member("infl_lu.csv.gz", gzip.compress(lines.encode()))]).decode().splitlines()
    assert table[0] == "lemma,pos,form1,form2,form3,form4"
    assert table[1:] == ["cat,noun,cats,,,", "good,adj,better,best,,", "go,verb,went,gone,going,goes"]


def test_copy_takes_exactly_one_member():
    with pytest.raises(ValueError):
        corpus.copy([Member("a", b""), Member("b", b"")])
