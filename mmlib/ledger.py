"""Claims ledger: the verdicts of all studies in one file, and its pages."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from mmlib import claims, store
from mmlib.claims import Card, Study
from mmlib.errors import UserError
from mmlib.judging import Row, compute, part
from mmlib.verdicts import VERDICTS

LEDGER, PAGE, README = "results/ledger.json", "reports/LEDGER.md", "README.md"
TIMINGS = "reports/timings.json"
MARKS = re.compile(r"(<!-- studies:begin[^>]*-->\n).*?(<!-- studies:end -->)", re.DOTALL)


def write(root: Path) -> None:
    """Compute and write results/ledger.json, and every study's rows beside its results."""
    rows = compute(root)
    for path, text in _tables(rows).items():
        store.atomic_write(root / path, text)
    print(f"ledger: {len(rows)} claims: {_counts(rows)}")


def join(root: Path) -> None:
    """Write results/ledger.json from the studies' own rows; a study that has not been judged here has none."""
    parts = [root / part(each.study) for each in claims.load_all(root)]
    rows = [row for path in parts if path.is_file() for row in store.read_json(path)]
    store.write_json(root / LEDGER, rows)
    print(f"ledger: {len(rows)} claims: {_counts(rows)}")


def publish(root: Path) -> None:
    """Render reports/LEDGER.md and the README's table from the ledger as it was written."""
    for path, text in _pages(root, store.read_json(root / LEDGER)).items():
        store.atomic_write(root / path, text)


def check(root: Path) -> None:
    """Recompute everything.

    Raises:
        UserError: if the committed ledger, LEDGER.md or README differs, naming the first claim with both verdicts.
    """
    rows = compute(root)
    remedy = "run `make reproduce`, look at the change, commit it with its cause"
    for path, text in {**_tables(rows), **_pages(root, rows)}.items():
        found = (root / path).read_text() if (root / path).is_file() else ""
        if found != text:
            detail = _first_difference(found, rows) if path == LEDGER else "it is not what the ledger renders to"
            raise UserError(f"{path}: {detail}", remedy)
    print(f"ledger: {len(rows)} verdicts recomputed, all as committed")


def _first_difference(found: str, rows: list[Row]) -> str:
    try:
        committed = {row["id"]: row for row in json.loads(found)}
    except (ValueError, TypeError, KeyError):
        return "it is missing or not a ledger"
    computed = {row["id"]: row for row in rows}
    for name in [*computed, *committed]:
        old, new = committed.get(name), computed.get(name)
        if old != new and old and new:
            keys = ", ".join(key for key in sorted({*old, *new}) if old.get(key) != new.get(key))
            return f"claim {name} is {old['verdict']} there and {new['verdict']} when recomputed (differs in {keys})"
        if old != new:
            return f"claim {name} is {'not in the claims' if old else 'missing there'}"
    return "its bytes differ although its rows do not"


def _tables(rows: list[Row]) -> dict[str, str]:
    """The ledger, and a part for every study."""
    names = sorted({row["study"] for row in rows})
    parts = {part(name): [row for row in rows if row["study"] == name] for name in names}
    return {path: store.dump_json(part) for path, part in {LEDGER: rows, **parts}.items()}


def _pages(root: Path, rows: list[Row]) -> dict[str, str]:
    studies = claims.load_all(root)
    readme = (root / README).read_text()
    if not MARKS.search(readme):
        raise UserError(f"{README} has lost its marks for the table of studies", f"restore it: `git checkout {README}`")
    table = render_readme_table(rows, studies, costs(root))
    return {
        PAGE: render_markdown(rows, studies),
        README: MARKS.sub(lambda match: f"{match[1]}{table}{match[2]}", readme),
    }


def record_timings(root: Path) -> None:
    """Keep what every stage's last run took (from the runner's logs) in reports/timings.json: `Usage.record`.

    On request only: otherwise everyone's rerun would change a tracked file.
    """
    logs = sorted((root / ".scratch/runs").glob("*/run.json"))
    runs = {log.parent.name: store.read_json(log) for log in logs}
    fresh = {stage: {key: value for key, value in run.items() if key != "stage"} for stage, run in runs.items()}
    store.write_json(root / TIMINGS, timings(root) | fresh)


def timings(root: Path) -> dict[str, dict[str, float]]:
    """Stage -> what its last recorded run took; of old records only the seconds are known."""
    stored = store.read_json(root / TIMINGS) if (root / TIMINGS).is_file() else {}
    return {stage: run if isinstance(run, dict) else {"seconds": run} for stage, run in stored.items()}


def costs(root: Path) -> dict[str, dict[str, float]]:
    """Study -> `processor_minutes` (sum over its stages), `peak_gib` (of the hungriest stage).

    Not the minutes by the clock: other work on the machine multiplies them, and changes processor time little. What
    any stage of a study lacks is left out.
    """
    runs: dict[str, list[dict[str, float]]] = {}
    for stage, run in timings(root).items():
        runs.setdefault(stage.partition("-")[0], []).append(run)
    found: dict[str, dict[str, float]] = {}
    for study, mine in runs.items():
        found[study] = {}
        if all("cpu_seconds" in run for run in mine):
            found[study]["processor_minutes"] = sum(run["cpu_seconds"] for run in mine) / 60
        if all("peak_mib" in run for run in mine):
            found[study]["peak_gib"] = max(run["peak_mib"] for run in mine) / 1024
    return found


def render_readme_table(rows: list[Row], studies: list[Study], costs: dict[str, dict[str, float]]) -> str:
    """Markdown: a line per study with its paper, how many claims got which verdict, and what it took."""
    lines = [_counts_head(rows, ["study", "paper"], ["processor minutes", "peak memory"])]
    for study in studies:
        mine = [row for row in rows if row["study"] == study.study]
        name, paper = f"[{study.study}]({PAGE}#{study.study})", f"[{_cell(study.paper.title)}]({study.paper.url})"
        cost = costs.get(study.study, {})
        formats = (("processor_minutes", "{:.0f}"), ("peak_gib", "{:.1f} GiB"))
        shown = [form.format(cost[name]) if name in cost else "–" for name, form in formats]
        lines.append(_counts_line(rows, mine, [name, paper], shown))
    return "\n".join(lines) + "\n"


def render_markdown(rows: list[Row], studies: list[Study]) -> str:
    """The text of reports/LEDGER.md: legend, a table per study, criteria with their history."""
    profile = rows[0]["profile"] if rows else "none"
    head = [
        "# Claims ledger",
        "",
        "Rendered by `python -m mmlib publish`; recomputed and compared in every test run.",
        f"Profile of the runs: **{profile}**. Effects are treatment minus control with 95 % intervals.",
        "",
        "| verdict | means |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in VERDICTS.items()),
    ]
    for study in studies:
        mine = {row["id"]: row for row in rows if row["study"] == study.study}
        head += ["", f"## {study.study}", "", f"[{study.paper.title}]({study.paper.url}). {study.paper.citation}.", ""]
        head += _subjects(list(mine.values()))
        head += ["| claim | about | statement | published | ours [95 %] | criterion | n | seeds | verdict | why |",
                 "|---|---|---|---|---|---|---|---|---|---|", *map(_line, mine.values())]  # fmt: skip
        head += ["", "### Contrasts, requirements and history", ""]
        head += [text for card in study.claims for text in _history(card)]
    return "\n".join(head) + "\n"


def _line(row: Row) -> str:
    paper, unit = row["published"], row["effect_unit"]
    cells = [
        row["id"],
        row["subject"],
        f"{row['statement']} ({row['place']})",
        f"{paper['effect']:+.3g} {unit}: {paper['label']}" if paper else "none confirmed",
        "–" if row["effect"] is None else f"{row['effect']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}] {unit}",
        _criterion(row["criterion"]),
        "–" if row["n_asked"] is None else f"{row['n_used']} of {row['n_asked']} {row['unit']}s",
        f"{row['seeds']} of {row['seeds_asked']}",
        f"**{row['verdict']}**",
        row["reason"],
    ]
    return f"| {' | '.join(map(_cell, cells))} |"


def _history(card: Card) -> list[str]:
    contrast = " minus ".join(f"`{side.metric}` of `{side.arm}`" for side in (card.treatment, card.control))
    validity = f"; requires {card.requires}" if card.requires else ""
    changes = (f"  * {change.date}: {change.change} (`{change.fingerprint}`)" for change in card.history)
    return [f"* **{card.id}**, version {card.version}: {contrast}, times {card.scale:g}{validity}", *changes]


def _criterion(criterion: dict[str, Any]) -> str:
    margin = f"{criterion['margin']:g}"
    return f"within ±{margin}" if criterion["kind"] == "equivalence" else f"{criterion['direction']}, beyond {margin}"


def _counts(rows: list[Row]) -> str:
    counts = Counter(row["verdict"] for row in rows)
    return " · ".join(f"{counts[name]} {name}" for name in _verdicts_of(rows))


def _verdicts_of(rows: list[Row]) -> list[str]:
    """The verdicts that occur, in the order of the legend."""
    return [name for name in VERDICTS if any(row["verdict"] == name for row in rows)]


def _counts_head(rows: list[Row], before: list[str], after: list[str]) -> str:
    names = [*before, "claims", *(name.replace("-", " ") for name in _verdicts_of(rows)), *after]
    rules = ["---"] * len(before) + ["--:"] * (len(names) - len(before))
    return f"| {' | '.join(names)} |\n|{'|'.join(rules)}|"


def _counts_line(rows: list[Row], mine: list[Row], before: list[str], after: list[str]) -> str:
    """How many of `mine` got each verdict that occurs in `rows`; none is an empty cell."""
    counts = Counter(row["verdict"] for row in mine)
    cells = [*before, str(len(mine)), *(str(counts[name] or "") for name in _verdicts_of(rows)), *after]
    return f"| {' | '.join(cells)} |"


def _subjects(rows: list[Row]) -> list[str]:
    """A table of counts, a line for each model that a study's rows are about; of one model alone, nothing."""
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    if len(subjects) == 1:
        return []
    lines = [
        _counts_line(rows, [row for row in rows if row["subject"] == name], [_cell(name)], []) for name in subjects
    ]
    return [_counts_head(rows, ["about"], []), *lines, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
