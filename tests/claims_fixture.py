"""A small study whose claims hold: evidence simulated from answers and gold labels, cards, a project with dvc.lock.

Faults are planted where they would happen: in the labels, the shards, the files; never in a verdict.
"""

from __future__ import annotations

import copy
import datetime
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mmlib import claims, store
from mmlib.evidence import Evidence

ROOT = Path(__file__).resolve().parent.parent
STUDY, STAGE, EVIDENCE = "demo", "demo-run", "results/demo/evidence.json"
TASKS, ITEMS, LABELS, WINDOWS = ("capital", "plural", "element", "past"), 40, 50, 24
SKILL = {"big": 0.9, "twin": 0.9, "small": 0.3}  # chance of knowing an answer


def evidence(*, shuffled_labels: bool = False, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """`big` (no seeds), `twin` (as good, other slips) and `small` on `em`; `nll` on text windows."""
    rng = np.random.default_rng(7)
    made = Evidence(STUDY, STAGE)
    units = [f"{task}/{number}" for task in TASKS for number in range(ITEMS)]
    made.units("icl", units, asked=len(units))
    made.units("text", [f"window/{number}" for number in range(WINDOWS)], asked=WINDOWS)
    made.metric("em", units="icl", higher_is_better=True, floor=0.0)
    made.metric("nll", units="text", higher_is_better=False, floor=None)
    gold = rng.integers(LABELS, size=len(units))
    marked = rng.permutation(gold) if shuffled_labels else gold
    known = rng.random(len(units)) < SKILL["big"]
    base = rng.normal(3.0, 0.4, WINDOWS)
    for arm, seed in [("big", None), *((arm, seed) for arm in ("twin", "small") for seed in seeds)]:
        slips = 0.02 if arm == "twin" else 0.0
        knows = (
            (rng.random(len(units)) < SKILL["small"]) if arm == "small" else known ^ (rng.random(len(units)) < slips)
        )
        answers = np.where(knows, gold, rng.integers(LABELS, size=len(units)))
        made.add("em", arm=arm, seed=seed, values=[float(v) for v in answers == marked])
        loss = {"big": 0.0, "twin": 0.01, "small": 1.5}[arm]
        made.add("nll", arm=arm, seed=seed, values=[float(v) for v in base + loss + rng.normal(0, 0.01, WINDOWS)])
    return made.as_dict()


def raw_card(name: str, metric: str, arm: str, criterion: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A card as YAML would give it, with its fingerprint in place."""
    accuracy = metric == "em"
    bounds = {"at_least": 0.5} if accuracy else {"at_least": 0.0, "at_most": 4.0}
    raw = {
        "id": name, "version": 1, "subject": "a model", "statement": f"{arm} against big", "place": "Table 9",
        "evidence": EVIDENCE, "stage": STAGE,
        "treatment": {"metric": metric, "arm": arm}, "control": {"metric": metric, "arm": "big"},
        "scale": 100 if accuracy else 1, "higher_is_better": accuracy, "effect_unit": "points", "published": None,
        "criterion": criterion, "requires": {"metric": metric, "arm": "big", **bounds}, "unit": "item", "seeds": 3,
        "at_scale": "reduced", "not_attempted": None, **changes,
    }  # fmt: skip
    return sealed(raw)


def sealed(raw: dict[str, Any]) -> dict[str, Any]:
    """The card with a history that covers its criterion."""
    line = {"date": datetime.date(2026, 1, 2), "change": "first version", "fingerprint": "?"}
    bare = claims._build(claims.Card, {**raw, "study": STUDY, "history": [line]}, "test", "")
    return {**raw, "history": [{**line, "fingerprint": claims.fingerprint(bare)}]}


def raw_cards() -> list[dict[str, Any]]:
    """One card per kind of claim; all hold on `evidence()`."""
    return [
        raw_card("D1-loss", "em", "small", {"kind": "difference", "direction": "negative", "margin": 10}),
        raw_card("D2-same", "em", "twin", {"kind": "equivalence", "margin": 8}),
        raw_card("D3-nll", "nll", "small", {"kind": "difference", "direction": "positive", "margin": 0.5}),
        raw_card("D4-nll-same", "nll", "twin", {"kind": "equivalence", "margin": 0.05}),
    ]


def card(raw: dict[str, Any]) -> claims.Card:
    """The validated card."""
    return claims._card(copy.deepcopy(raw), STUDY, "claims/demo.yaml")


def cards() -> dict[str, claims.Card]:
    """The validated cards by id."""
    return {raw["id"]: card(raw) for raw in raw_cards()}


def write_yaml(path: Path, obj: Any) -> None:
    """YAML 1.2, as DVC writes it."""
    from ruamel.yaml import YAML

    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(obj, stream)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(stream.getvalue())


def write_cards(root: Path, raws: list[dict[str, Any]]) -> None:
    """claims/demo.yaml."""
    paper = {"title": "A Paper", "citation": "Doe 2026", "url": "https://example.org"}
    write_yaml(root / "claims/demo.yaml", {"study": STUDY, "paper": paper, "claims": raws})


def project(root: Path) -> Path:
    """A clean clone of a tiny project after its run: dvc.lock, evidence and sources agree; cached outputs absent."""
    for name in ("mmlib/demo.py", "mmlib/before.py", "notebooks/demo/01.ipynb"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    (root / "README.md").write_text("# Demo\n<!-- studies:begin (rendered) -->\nold\n<!-- studies:end -->\nend\n")
    write_cards(root, raw_cards())
    store.write_json(
        root / "reports/timings.json",
        {
            stage: {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_mib": 6 * seconds + 96}
            for stage, seconds in (("demo-before", 180.0), (STAGE, 240.0))
        },
    )
    store.write_json(root / EVIDENCE, evidence())
    write_yaml(root / "dvc.lock", {"schema": "2.0", "stages": _locked(root)})
    return root


def _locked(root: Path) -> dict[str, Any]:
    from mmlib import config

    def files(*paths: str) -> list[dict[str, str]]:
        return [{"path": path, "hash": "md5", "md5": store.md5_file(root / path)} for path in paths]

    def folder(path: str) -> dict[str, str]:
        return {"path": path, "hash": "md5", "md5": "0" * 32 + ".dir"}

    return {
        "demo-before": {
            "deps": [*files("mmlib/before.py"), folder("data/text")],
            "params": {"params.yaml": {"lm": config.values("lm", root)}},
            "outs": [folder("results/demo/model")],
        },
        STAGE: {
            "deps": [
                *files("mmlib/demo.py", "notebooks/demo/01.ipynb"),
                folder("results/demo/model"),
                folder("data/text"),
            ],
            "params": {"params.yaml": {"quantization.bits.damping": 0.01}},
            "outs": files(EVIDENCE),
        },
    }
