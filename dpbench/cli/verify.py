"""``dpbench verify``: check the privacy claims of records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpbench.cli.app import err, out, outcome, print_json
from dpbench.cli.options import AsJson, Debug
from dpbench.core.errors import UserError

if TYPE_CHECKING:
    from dpbench.records.verify import Verdict


def verify(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="RECORD...", help="Records, runs' folders, or folders of runs."),
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check the privacy claims of records.

    Epsilon is recomputed from the events, everything that a record states twice must agree, and its
    audit must have raised no alarm.
    Exit codes: 0, verified; 1, rejected, with a line for each problem; 2, no record.
    """
    with outcome(debug):
        from dpbench.cli.console import progress_on
        from dpbench.records.verify import records_at
        from dpbench.records.verify import verify as verified

        verdicts, unreadable = [], []
        files: list[Path] = []
        for path in records:
            try:
                files += records_at(path)
            except UserError as error:  # the remaining records are still checked
                unreadable.append(str(error))
        with progress_on(err).task("verifying", len(files), "records") as task:
            for file in files:
                try:
                    verdicts.append(verified(file))
                except UserError as error:
                    unreadable.append(str(error))
                task.advance(1)
        if as_json:
            print_json([_verdict_json(verdict) for verdict in verdicts])
        else:
            for verdict in verdicts:
                _print_verdict(verdict)
        if unreadable:
            raise UserError("; ".join(unreadable))
        if not all(verdict.verified for verdict in verdicts):
            raise typer.Exit(1)


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "record": str(verdict.file),
        "verified": verdict.verified,
        "epsilon": verdict.epsilon,
        "recomputed": verdict.recomputed,
        "wrong": list(verdict.wrong),
        "unchecked": list(verdict.unchecked),
    }


def _print_verdict(verdict: Verdict) -> None:
    lines = [f"{'verified' if verdict.verified else 'REJECTED'}  {verdict.file}"]
    if verdict.recomputed is not None:
        lines.append(f"epsilon {verdict.epsilon:.6g}, recomputed {verdict.recomputed:.6g}")
    elif verdict.epsilon == math.inf:
        lines.append("not private: there is no epsilon to recompute")
    lines += [f"wrong: {line}" for line in verdict.wrong]
    lines += [f"not checked: {line}" for line in verdict.unchecked]
    for place, line in enumerate(lines):
        out.say(f"  {line}" if place else line)
