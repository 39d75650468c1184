"""The ledger: evidence that moved is stale, committed pages are what the evidence says, faults are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mmlib import claims, config, judging, ledger, stages, store
from mmlib.errors import UserError
from tests import claims_fixture as fixture


@pytest.fixture
def project(tmp_path):
    return fixture.project(tmp_path)


@pytest.fixture
def committed(project):
    ledger.write(project)
    ledger.publish(project)
    return project


def verdicts(root):
    return {row["id"]: row["verdict"] for row in ledger.compute(root)}


def stale_reason(root):
    rows = ledger.compute(root)
    assert {row["verdict"] for row in rows} == {"stale"} and all(row["effect"] is None for row in rows)
    (reason,) = {row["reason"] for row in rows}
    return reason


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_clean_clone_computes_every_verdict(project):
    assert not (project / "results/demo/model").exists() and not (project / "data").exists()
    assert set(verdicts(project).values()) == {"consistent-at-reduced-scale"}
    assert list(verdicts(project)) == ["D1-loss", "D2-same", "D3-nll", "D4-nll-same"], "the order of the file"


def test_the_lock_field_is_the_evidence_s_md5(project):
    expected = store.md5_file(project / fixture.EVIDENCE)
    assert {row["lock"] for row in ledger.compute(project)} == {expected}


def test_a_study_s_part_holds_its_rows_alone_and_is_checked(committed):
    part = committed / "results/demo/summary_verdicts.json"
    assert store.read_json(part) == store.read_json(committed / "results/ledger.json")
    edit(part, "D1-loss", "D9-loss")
    with pytest.raises(UserError, match=r"results/demo/summary_verdicts\.json: it is not what the ledger renders to"):
        ledger.check(committed)


def test_joined_parts_are_the_whole_ledger_and_a_study_not_judged_yet_has_no_rows(committed):
    whole = (committed / ledger.LEDGER).read_bytes()
    (committed / ledger.LEDGER).unlink()
    ledger.join(committed)
    assert (committed / ledger.LEDGER).read_bytes() == whole
    (committed / judging.part("demo")).unlink()
    ledger.join(committed)
    assert store.read_json(committed / ledger.LEDGER) == []
    judging.write_part(committed, "demo")
    ledger.join(committed)
    assert (committed / ledger.LEDGER).read_bytes() == whole
    with pytest.raises(UserError, match="no claims of a study `other`"):
        judging.write_part(committed, "other")


def test_reports_of_a_study_do_not_depend_on_what_others_claim(root):
    for stage in [stage for name, stage in stages.load(root).items() if name != "ledger"]:
        foreign = [dep for dep in stage.deps if dep.endswith(("summary_verdicts.json", "/ledger.json"))]
        assert foreign in ([], [f"results/{stage.name.partition('-')[0]}/summary_verdicts.json"]), stage.name


# ---- planted faults: what moved after the run -----------------------------------------------------------------------


def test_edited_evidence_is_stale(project):
    edit(project / fixture.EVIDENCE, '"big": {', '"big": { ')
    assert "evidence.json was edited" in stale_reason(project)


def test_arms_swapped_in_the_file_are_stale_also_for_an_equivalence(project):
    evidence = store.read_json(project / fixture.EVIDENCE)
    values = evidence["metrics"]["em"]["values"]
    values["big"], values["twin"] = values["twin"], values["big"]
    store.write_json(project / fixture.EVIDENCE, evidence)
    assert verdicts(project)["D2-same"] == "stale"


@pytest.mark.parametrize("name", ["mmlib/demo.py", "notebooks/demo/01.ipynb"])
def test_an_edited_source_is_stale_and_named(project, name):
    edit(project / name, "#", "# edited")
    assert stale_reason(project) == f"{name} changed since demo-run ran"


def test_a_removed_source_is_stale(project):
    (project / "mmlib/demo.py").unlink()
    assert "mmlib/demo.py changed" in stale_reason(project)


def test_an_edited_source_of_an_earlier_stage_is_stale(project):
    edit(project / "mmlib/before.py", "#", "# edited")
    assert stale_reason(project) == "mmlib/before.py changed since demo-before ran"


def test_an_edited_parameter_is_stale_and_named(project):
    edit(project / "params.yaml", "damping: 0.01", "damping: 0.02")
    assert stale_reason(project) == "parameter quantization.bits.damping changed since demo-run ran"


def test_an_edited_parameter_of_an_earlier_stage_is_stale(project):
    edit(project / "params.yaml", "max_perplexity: 40.0", "max_perplexity: 41.0")
    assert stale_reason(project) == "parameter lm changed since demo-before ran"


def test_a_parameter_that_nobody_read_is_not(project):
    edit(project / "params.yaml", "icl_items: 40", "icl_items: 41")
    assert "stale" not in verdicts(project).values()


def relock(root, change):
    lock = config.read_yaml(root / "dvc.lock")
    change(lock["stages"])
    fixture.write_yaml(root / "dvc.lock", lock)


def test_an_earlier_stage_run_again_without_this_one_is_stale(project):
    relock(project, lambda stages: stages["demo-before"]["outs"][0].update(md5="2" * 32 + ".dir"))
    assert stale_reason(project) == "results/demo/model changed since demo-run ran"


def test_a_stage_that_never_ran_is_stale(project):
    relock(project, lambda stages: stages.pop("demo-run"))
    assert "dvc.lock records no run of demo-run" in stale_reason(project)
    (project / "dvc.lock").unlink()
    assert "dvc.lock records no run" in stale_reason(project)


def test_evidence_of_another_stage_is_stale(project):
    relock(project, lambda stages: stages.update({"demo-other": stages.pop("demo-run")}))
    assert "dvc.lock records no run of demo-run" in stale_reason(project)


def test_missing_evidence_is_stale(project):
    (project / fixture.EVIDENCE).unlink()
    assert stale_reason(project) == "results/demo/evidence.json is missing"


def test_a_claim_not_attempted_needs_no_evidence(project):
    raws = fixture.raw_cards()
    raws[0] = fixture.sealed({**raws[0], "not_attempted": "needs 65B"})
    fixture.write_cards(project, raws)
    (project / fixture.EVIDENCE).unlink()
    assert verdicts(project)["D1-loss"] == "not-attempted" and verdicts(project)["D2-same"] == "stale"


def test_a_comment_edit_leaves_the_ledger_as_it_was_once_the_stage_has_run(committed):
    before = (committed / ledger.LEDGER).read_bytes()
    edit(committed / "mmlib/demo.py", "#", "# a comment")
    now = store.md5_file(committed / "mmlib/demo.py")
    relock(committed, lambda stages: stages["demo-run"]["deps"][0].update(md5=now))
    ledger.write(committed)
    assert (committed / ledger.LEDGER).read_bytes() == before


# ---- check ----------------------------------------------------------------------------------------------------------


def refused(root):
    with pytest.raises(UserError) as error:
        ledger.check(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_check_passes_on_what_was_committed_and_twice_gives_the_same_bytes(committed, capsys):
    before = {path: (committed / path).read_bytes() for path in (ledger.LEDGER, ledger.PAGE, ledger.README)}
    ledger.check(committed)
    assert "4 verdicts recomputed" in capsys.readouterr().out
    ledger.write(committed)
    ledger.publish(committed)
    assert {path: (committed / path).read_bytes() for path in before} == before


def test_check_names_the_claim_and_both_verdicts(committed):
    edit(committed / ledger.LEDGER, '"verdict": "consistent-at-reduced-scale"', '"verdict": "reproduced"')
    text = refused(committed)
    assert text.startswith("results/ledger.json: claim D1-loss is reproduced there and consistent-at-reduced-scale")
    ledger.write(committed)
    edit(committed / "mmlib/demo.py", "#", "# edited")
    assert "claim D1-loss is consistent-at-reduced-scale there and stale when recomputed" in refused(committed)


def test_check_notices_a_number_a_missing_row_and_a_missing_file(committed):
    edit(committed / ledger.LEDGER, '"effect": -', '"effect": -9')
    assert "claim D1-loss" in (text := refused(committed)) and "(differs in effect)" in text
    rows = ledger.compute(committed)
    store.write_json(committed / ledger.LEDGER, rows[:-1])
    assert "claim D4-nll-same is missing there" in refused(committed)
    store.write_json(committed / ledger.LEDGER, [*rows, {**rows[0], "id": "D9"}])
    assert "claim D9 is not in the claims" in refused(committed)
    (committed / ledger.LEDGER).write_text(json.dumps(rows))
    assert "its bytes differ" in refused(committed)
    (committed / ledger.LEDGER).write_text("[{")
    assert "not a ledger" in refused(committed)
    (committed / ledger.LEDGER).unlink()
    assert "results/ledger.json: it is missing" in refused(committed)


def test_check_notices_an_edited_page_and_readme(committed):
    edit(committed / ledger.PAGE, "**consistent-at-reduced-scale**", "**reproduced**")
    assert refused(committed).startswith("reports/LEDGER.md: ")
    ledger.publish(committed)
    edit(committed / ledger.README, "| 4 | 4 |", "| 4 | 5 |")
    assert refused(committed).startswith("README.md: ")
    edit(committed / ledger.README, "<!-- studies:end -->", "")
    assert "README.md has lost its marks" in refused(committed)


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_the_page_shows_effect_margin_reason_and_history(committed):
    page = (committed / ledger.PAGE).read_text()
    row = ledger.compute(committed)[0]
    line = next(text for text in page.splitlines() if text.startswith("| D1-loss"))
    numbers = f"{row['effect']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}] points"
    verdict = "**consistent-at-reduced-scale**"
    for part in (
        numbers,
        "negative, beyond 10",
        "160 of 160 items",
        "3 of 3",
        verdict,
        row["reason"],
        "none confirmed",
    ):
        assert part in line
    assert "2026-01-02: first version (`" in page and "[A Paper](https://example.org). Doe 2026." in page
    assert page.count("\n| D") == 4 and "`em` of `small` minus `em` of `big`, times 100" in page


def test_a_pipe_in_a_statement_does_not_break_the_table(committed):
    raws = fixture.raw_cards()
    raws[0]["statement"] = "a | b"
    fixture.write_cards(committed, raws)
    ledger.write(committed)
    ledger.publish(committed)
    line = next(t for t in (committed / ledger.PAGE).read_text().splitlines() if t.startswith("| D1"))
    assert line.replace("\\|", "").count("|") == 11


def test_the_page_counts_verdicts_for_each_model(committed):
    raws = fixture.raw_cards()
    for number, raw in enumerate(raws):
        raw["subject"] = "a large model" if number else "a | small model"
    fixture.write_cards(committed, raws)
    ledger.write(committed)
    ledger.publish(committed)
    page = (committed / ledger.PAGE).read_text()
    head = "| about | claims | consistent at reduced scale |\n|---|--:|--:|\n"
    assert head + "| a \\| small model | 1 | 1 |\n| a large model | 3 | 3 |\n" in page
    line = next(t for t in (committed / ledger.PAGE).read_text().splitlines() if t.startswith("| D2-same"))
    assert line.startswith("| D2-same | a large model | twin against big")


def test_the_readme_keeps_its_prose_and_shows_costs_and_counts(committed):
    text = (committed / ledger.README).read_text()
    assert text.startswith("# Demo\n<!-- studies:begin (rendered) -->\n") and text.endswith(
        "<!-- studies:end -->\nend\n"
    )
    line = "| [demo](reports/LEDGER.md#demo) | [A Paper](https://example.org) | 4 | 4 | 14 | 1.5 GiB |\n"
    assert line in text
    assert "old" not in text


def test_costs_that_a_stage_lacks_are_not_shown_and_old_records_hold_seconds(project):
    store.write_json(project / ledger.TIMINGS, {"demo-before": 60.0, "demo-run": {"seconds": 60.0, "peak_mib": 512.0}})
    assert ledger.costs(project) == {"demo": {}}
    store.write_json(project / ".scratch/runs/demo-before/run.json",
                     {"stage": "demo-before", "seconds": 30.0, "cpu_seconds": 50.0, "peak_mib": 2048.0})  # fmt: skip
    ledger.record_timings(project)
    assert ledger.costs(project) == {"demo": {"peak_gib": 2.0}}


# ---- the repository's own stage --------------------------------------------------------------------------------------


def needed(study):
    """The cards and evidence files of a study: its `verdicts` stage must run when one of them moves."""
    return {f"claims/{study.study}.yaml", *(card.evidence for card in study.claims if card.not_attempted is None)}


def test_a_verdicts_stage_depends_on_its_study_s_cards_and_evidence_and_the_ledger_on_all_verdicts(root):
    known, studies = stages.load(root), claims.load_all(root)
    for study in studies:
        assert not needed(study) - set(known[f"{study.study}-verdicts"].deps), study.study
    assert {judging.part(study.study) for study in studies} == {d for d in known["ledger"].deps if d[:8] == "results/"
                                                                 and not d.startswith("results/env")}  # fmt: skip


def test_evidence_that_a_verdicts_stage_forgot_is_noticed(project):
    (study,) = claims.load_all(project)
    assert needed(study) == {"claims/demo.yaml", fixture.EVIDENCE}


# ---- with the real DVC ----------------------------------------------------------------------------------------------

PIPELINE = {
    "stages": {
        "demo-run": {
            "cmd": "cp made.json results/demo/evidence.json",
            "deps": ["made.json", "mmlib/demo.py"],
            "params": ["quantization.bits.damping"],
            "metrics": [{"results/demo/evidence.json": {"cache": False}}],
        },
        "demo-verdicts": {
            "cmd": "python -m mmlib ledger --study demo",
            "deps": ["claims/demo.yaml", "results/demo/evidence.json"],
            "params": ["profile"],
            "metrics": [{"results/demo/summary_verdicts.json": {"cache": False}}],
        },
        "ledger": {
            "cmd": "python -m mmlib ledger --join",
            "deps": ["results/demo/summary_verdicts.json"],
            "metrics": [{"results/ledger.json": {"cache": False}}],
        },
    }
}


def test_dvc_writes_the_producing_stage_s_record_before_the_ledger_runs(project):
    (project / "dvc.lock").unlink()
    (project / fixture.EVIDENCE).rename(project / "made.json")
    fixture.write_yaml(project / "dvc.yaml", PIPELINE)
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(fixture.ROOT)}
    for arguments in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, env=environment, check=True)
    rows = store.read_json(project / ledger.LEDGER)
    assert {row["verdict"] for row in rows} == {"consistent-at-reduced-scale"}
    edit(project / "params.yaml", "damping: 0.01", "damping: 0.02")
    assert "parameter quantization.bits.damping changed" in stale_reason(project)
