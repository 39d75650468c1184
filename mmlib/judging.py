"""Cards judged on evidence that still belongs to the code.

Evidence belongs to the present if dvc.lock says so: the file has the recorded MD5, and every recorded source,
notebook and parameter of the stage that made it, and of the stages before that one, is what it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlib import claims, config, store
from mmlib.claims import Card, Study
from mmlib.errors import UserError
from mmlib.verdicts import judge

Row = dict[str, Any]


class Lock:
    """dvc.lock, and what moved since it was written."""

    def __init__(self, root: Path) -> None:
        path = root / "dvc.lock"
        self.root = root
        self.stages: dict[str, Any] = (config.read_yaml(path) or {}).get("stages", {}) if path.exists() else {}
        self.made = {out["path"]: (name, out["md5"]) for name in self.stages for out in self._items(name, "outs")}
        self._memory: dict[str, str] = {}

    def state(self, card: Card) -> tuple[str, str]:
        """(why the card's evidence is stale, "" if it is not; its recorded MD5).

        The MD5 of the evidence, not of the code: a comment edit that leaves the evidence as it was must leave the
        ledger as it was, once the stage has run again.
        """
        maker, recorded = self.made.get(card.evidence, ("", ""))
        if maker != card.stage:
            return f"dvc.lock records no run of {card.stage} that made {card.evidence}", ""
        path = self.root / card.evidence
        if not path.is_file():
            return f"{card.evidence} is missing", recorded
        if store.md5_file(path) != recorded:
            return f"{card.evidence} was edited after the run that made it", recorded
        return self.moved(card.stage), recorded

    def moved(self, stage: str) -> str:
        """The first dependency or parameter of a stage, or of one before it, that is not as recorded; else ""."""
        if stage not in self._memory:
            self._memory[stage] = ""  # a cycle, which DVC refuses anyway, must not hang us
            self._memory[stage] = self._moved(stage)
        return self._memory[stage]

    def _moved(self, stage: str) -> str:
        deps = self._items(stage, "deps")
        for dep in deps:
            if self._present(dep["path"], dep.get("md5")) != dep.get("md5"):
                return f"{dep['path']} changed since {stage} ran"
        for name, recorded in self.stages[stage].get("params", {}).get(config.PARAMS, {}).items():
            if self._parameter(name) != recorded:
                return f"parameter {name} changed since {stage} ran"
        before = {maker for dep in deps for out, (maker, _) in self.made.items() if _overlap(dep["path"], out)}
        return next(filter(None, map(self.moved, sorted(before))), "")

    def _present(self, path: str, recorded: str | None) -> str | None:
        """MD5 of a dependency now; for folders, and outputs not on disk (a clean clone), that of the last run."""
        if (self.root / path).is_file():
            return store.md5_file(self.root / path)
        if path in self.made:
            return self.made[path][1]
        kept_out_of_git = path.split("/")[0] in ("data", "results")
        return recorded if kept_out_of_git or (self.root / path).is_dir() else None

    def _parameter(self, name: str) -> Any:
        try:
            return config.values(name, self.root)
        except UserError:
            return None

    def _items(self, stage: str, kind: str) -> list[dict[str, Any]]:
        return self.stages[stage].get(kind) or []


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def compute(root: Path, study: str = "") -> list[Row]:
    """A row per card, studies by name, cards in the order of their file; or those of one study."""
    lock, profile = Lock(root), config.load(root).profile
    rows = []
    for each in studies(root, study):
        for card in each.claims:
            stale, recorded = lock.state(card)
            evidence = None if stale or card.not_attempted else store.read_json(root / card.evidence)
            rows.append(judge(card, evidence, profile=profile, stale=stale, lock=recorded))
    return rows


def studies(root: Path, study: str = "") -> list[Study]:
    """All studies with claims, or the one named."""
    known = claims.load_all(root)
    if study and study not in {each.study for each in known}:
        raise UserError(f"no claims of a study `{study}`", f"choose one of: {', '.join(each.study for each in known)}")
    return [each for each in known if study in ("", each.study)]


def part(study: str) -> str:
    """Where a study's rows stand: its reports depend on that alone, not on what other studies claim."""
    return f"results/{study}/summary_verdicts.json"


def write_part(root: Path, study: str) -> None:
    """Compute and write the rows of one study."""
    rows = compute(root, study)
    store.write_json(root / part(study), rows)
    print(f"{study}: {len(rows)} claims judged")
