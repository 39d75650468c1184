"""Turns members of pinned wheels into the files of data/: text corpus, reference tables, sprite shard.

Every maker is a pure function of the members' bytes, and gives the same bytes on every CPython from 3.11
on and on every platform, so that `mmlib.fetch` can hold the result against a recorded SHA-256.
"""

from __future__ import annotations

import ast
import csv
import gzip
import inspect
import io
import json
import re
import sqlite3
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MIN_CHARS = 400
# Vendored code has other authors and licences, and shows up again in its own package.
FOREIGN = {"tests", "externals", "_external", "_vendored", "_lib"}
# In a docstring that is not raw, "\frac" is a form feed and "\alpha" a bell: such LaTeX is broken for good.
# What is left has no whitespace but " " and "\n", on which inspect.cleandoc of 3.11 to 3.14 agree.
BROKEN = re.compile(r"[^\S\n ]|[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
OWNERS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Member(NamedTuple):
    """One file of a wheel: its path inside the wheel and its bytes."""

    path: str
    content: bytes


def copy(members: list[Member]) -> bytes:
    """The one member, unchanged."""
    (member,) = members
    return member.content


def shard(members: list[Member]) -> bytes:
    """All members in one uncompressed zip, named by file name and sorted, with fixed dates and modes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted((PurePosixPath(m.path).name, m.content) for m in members):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16  # else the host's system is recorded
            archive.writestr(info, content)
    return buffer.getvalue()


def docstrings(members: list[Member]) -> bytes:
    """JSON lines {package, module, name, text}, sorted, of the docstrings of Python sources.

    `package` is the import name (sklearn, not scikit-learn); `name` is empty for a module's own docstring.
    A docstring counts when it has MIN_CHARS characters after cleaning and no broken escape; of exact
    duplicates the first stays. Sources are parsed, never imported.
    Raises: SyntaxError when a source does not parse (the pinned wheels all do, from 3.11 on).
    """
    rows = sorted(row for m in members if _is_own(m.path) for row in _docstrings_of(m))
    seen: set[str] = set()
    lines = []
    for package, module, name, text in rows:
        if text not in seen:
            seen.add(text)
            record = {"package": package, "module": module, "name": name, "text": text}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _is_own(path: str) -> bool:
    return path.endswith(".py") and FOREIGN.isdisjoint(PurePosixPath(path).parts)


def _docstrings_of(member: Member) -> Iterator[tuple[str, str, str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # "\d" in an old docstring; an error under -W error
        warnings.simplefilter("ignore", DeprecationWarning)  # the same, before 3.12
        tree = ast.parse(member.content, filename=member.path)
    module = member.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for name, node in _owners(tree, ""):
        raw = ast.get_docstring(node, clean=False)  # as written: 3.13 dedents only when it compiles
        text = clean(raw) if raw else ""
        if len(text) >= MIN_CHARS:
            yield module.partition(".")[0], module, name, text


def _owners(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """The module, then its classes, methods and functions under their qualified names; no local functions."""
    yield name, node
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for child in _definitions(node.body):
            yield from _owners(child, f"{name}.{child.name}" if name else child.name)


def _definitions(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Definitions in a body, those under `if` and `try` included."""
    for statement in body:
        if isinstance(statement, OWNERS):
            yield statement
        elif isinstance(statement, (ast.If, ast.Try)):
            handlers = [s for h in getattr(statement, "handlers", []) for s in h.body]
            yield from _definitions([*statement.body, *handlers, *statement.orelse])


def clean(raw: str) -> str:
    """A docstring without its indentation and trailing blanks; empty when an escape in it is broken."""
    if BROKEN.search(raw):
        return ""
    return "\n".join(line.rstrip() for line in inspect.cleandoc(raw).split("\n")).strip()


def _table(header: str, rows: Iterable[Iterable[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return buffer.getvalue().encode()


def elements(members: list[Member]) -> bytes:
    """CSV atomic_number,symbol,name out of mendeleev's SQLite file."""
    with tempfile.TemporaryDirectory() as folder:  # Connection.deserialize is missing from some builds
        path = Path(folder, "elements.db")
        path.write_bytes(copy(members))
        connection = sqlite3.connect(path)
        query = "SELECT atomic_number, symbol, name FROM elements ORDER BY atomic_number"
        rows = connection.execute(query).fetchall()
        connection.close()
    return _table("atomic_number,symbol,name", rows)


def demonyms(members: list[Member]) -> bytes:
    """CSV country,demonym,capital out of countryinfo's files; a country without a demonym is left out.

    Several demonyms of one country are joined by commas, several capitals by slashes.
    """
    rows = set()
    for country in (json.loads(m.content) for m in members):
        capital = country.get("capital") or ""
        if country.get("demonym"):
            name = capital if isinstance(capital, str) else "/".join(capital)
            rows.add((country["name"], country["demonym"], name))
    return _table("country,demonym,capital", sorted(rows))


def inflections(members: list[Member]) -> bytes:
    """CSV lemma,pos,form1..form4 out of lemminflect's look-up table; spelling variants joined by slashes.

    Forms: noun: plural; adj and adv: comparative, superlative; verb: past, past participle, gerund,
    third person. A form that does not exist is empty.
    """
    lines = gzip.decompress(copy(members)).decode().splitlines()
    rows = (line.split(",") for line in lines if line)
    return _table("lemma,pos,form1,form2,form3,form4", (row + [""] * (6 - len(row)) for row in rows))


MAKERS: dict[str, Callable[[list[Member]], bytes]] = {
    maker.__name__: maker for maker in (copy, shard, docstrings, elements, demonyms, inflections)
}
