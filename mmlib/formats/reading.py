"""What all readers share: streamed JSON, JSON lines, typed fields, and the count of what was skipped and why."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmlib import store
from mmlib.errors import UserError

EXAMPLES = 3


class Skips:
    """Counts defects by name and keeps the first few culprits of each.

    Use one for a whole file and print it: `read 995, skipped 5: no image 3 (a, b, c), negative box 2 (d, e)`.
    """

    def __init__(self) -> None:
        self.read = 0
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def note(self, reason: str, culprit: object) -> None:
        """One more `reason`."""
        self.counts[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(str(culprit))

    def __str__(self) -> str:
        reasons = [f"{reason} {count} ({', '.join(self.examples[reason])})" for reason, count in self.counts.items()]
        return f"read {self.read}, defects {self.counts.total()}" + (f": {', '.join(reasons)}" if reasons else "")


class Broken(ValueError):
    """A record that cannot be used; the text is the reason it is counted under."""


def field(row: Any, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
    """`row[key]` if it is of that type, `default` if it is absent.

    Raises:
        Broken: not an object, key missing without a default, or another type.
    """
    if not isinstance(row, dict):
        raise Broken("not an object")
    if key not in row or (row[key] is None and default is not ...):
        if default is ...:
            raise Broken(f"no `{key}`")
        return default
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # bool is an int in Python; a count that says `true` is damage.
    if not isinstance(row[key], kinds) or (isinstance(row[key], bool) and bool not in kinds):
        raise Broken(f"`{key}` is of type {type(row[key]).__name__}")
    return row[key]


def each(rows: Iterable[Any], parse: Any, skips: Skips, name: str = "id") -> Iterator[Any]:
    """`parse(row)` of every row; a `Broken` one is counted and left out."""
    for number, row in enumerate(rows):
        try:
            record = parse(row)
        except Broken as error:
            culprit = row.get(name, f"row {number}") if isinstance(row, dict) else f"row {number}"
            skips.note(str(error), culprit)
            continue
        skips.read += 1
        yield record


def stream_json(path: Path, prefix: str = "item") -> Iterator[Any]:
    """Items of a JSON array, one at a time: `item` for a list at the top, `annotations.item` for one below a key.

    Raises:
        UserError: the file is missing, is not JSON, or has no such list.
    """
    import ijson

    _require(path)
    empty = True
    try:
        with path.open("rb") as stream:
            for value in ijson.items(stream, prefix, use_float=True):
                empty = False
                yield value
        if empty:  # an empty list is fine, another format is not
            with path.open("rb") as stream:
                above = prefix.removesuffix("item").removesuffix(".")
                if not any(event[:2] == (above, "start_array") for event in ijson.parse(stream)):
                    wanted = f"a list below `{above}`" if above else "a list"
                    raise UserError(f"{path} does not hold {wanted}", "check that it is the file of this format")
    except ijson.JSONError as error:
        raise UserError(f"{path} is not whole JSON: {error}", "fetch the file again") from error


def read_json(path: Path) -> Any:
    """A whole small JSON file."""
    _require(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}", "fetch the file again") from error


def stream_lines(path: Path, skips: Skips) -> Iterator[Any]:
    """Values of a JSON-lines file; a line that does not parse is counted."""
    _require(path)
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    skips.note("line is not JSON", f"line {number}")


def stream_table(path: Path, columns: tuple[str, ...], delimiter: str) -> Iterator[dict[str, str]]:
    """Rows of a delimited file with a header that has at least these columns."""
    _require(path)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter=delimiter)
        if missing := [column for column in columns if column not in (rows.fieldnames or [])]:
            culprit = f"{path} has no column {', '.join(missing)} (it has: {', '.join(rows.fieldnames or [])})"
            raise UserError(culprit, "check that it is the file of this format")
        yield from rows


def write_list(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """A JSON array, one record a line, written piece by piece; the number of records."""
    count = 0
    with store.atomic_stream(path) as stream:
        stream.write("[")
        for row in rows:
            stream.write((",\n" if count else "\n") + json.dumps(row, ensure_ascii=False))
            count += 1
        stream.write("\n]\n")
    return count


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """JSON lines; the number of records."""
    count = 0
    with store.atomic_stream(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _require(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing", "check the path, or write the file first")
