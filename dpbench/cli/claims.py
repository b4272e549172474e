"""``dpbench claims``: judge published claims by our own records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpbench.cli.app import err, new_table, out, outcome, print_json, say_error
from dpbench.cli.grids import end, estimated_cells, plan_json, print_outcomes, refuse, say_next
from dpbench.cli.options import AsJson, DataRoot, Debug, DryRun, RunsDir, check_read
from dpbench.cli.report import refuse_left_out
from dpbench.core.errors import UserError

if TYPE_CHECKING:
    from dpbench.claims.arms import Arm
    from dpbench.claims.rules import Claim
    from dpbench.claims.values import Metric
    from dpbench.claims.verdicts import ClaimVerdict
    from dpbench.records.run_record import RunRecord
    from dpbench.runs.request import RunRequest
    from dpbench.runs.sweep.execute import Outcome

TITLE = "claims"


def claims(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Ids of claims. Default: all.")
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="First execute the missing runs, as `dpbench sweep` does.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    leaderboards: Annotated[
        Path, typer.Option("--out", help="Folder of the collected records and claims.csv.")
    ] = Path("leaderboards"),
    data_root: DataRoot = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Judge published claims by our own records.

    A claim is supported, contradicted, unresolved or untested. Writes claims.csv and
    claims.html. P-values are adjusted over all claims, so all are judged even if only some are
    asked for. With --run, runs that are complete or have a record are skipped, and a failed run
    does not stop the others.
    """
    with outcome(debug, "Interrupted: the same command continues where this one stopped."):
        from dpbench.claims.published import CLAIMS
        from dpbench.core.cache import user_cache
        from dpbench.core.files import check_writable
        from dpbench.records.accounts import Accounts
        from dpbench.report import claims as report
        from dpbench.report import collect, files
        from dpbench.report.alarms import find_alarms

        if dry_run and not run:
            raise UserError("--dry-run prints the plan of --run: give both options")
        chosen = _chosen(ids or [], CLAIMS)
        if not dry_run:
            check_writable(leaderboards, "choose another --out")
        if not run:
            check_read(runs_dir, "runs")
        elif not dry_run:
            check_writable(runs_dir, "choose another --runs-dir")
        accounts = Accounts(user_cache())
        outcomes: list[Outcome] = []
        if run:
            wanted = _missing(chosen, collect.committed_records(leaderboards, accounts))
            executed = _run(wanted, runs_dir, data_root, dry_run, as_json, debug)
            if executed is None:
                return
            outcomes = executed
        found = collect.collect(runs_dir, leaderboards, accounts)
        records = collect.committed_records(leaderboards, accounts, found.files)
        accounts.save()
        verdicts = report.judge(records)
        if records:  # without records there is nothing to write
            texts = report.files(verdicts, find_alarms(records), leaderboards)
            files.write({**found.files, **texts}, leaderboards)
        for line in found.refused:
            say_error(f"left out: {line}")
        if found.records:
            err.say(
                f"collected {len(found.records)} records: `dpbench report` writes the leaderboards"
            )
        asked = [verdict for verdict in verdicts if verdict.claim in chosen]
        if as_json:
            print_json([report.row(verdict) for verdict in asked])
        else:
            _print_verdicts(asked)
            out.print(report.NOTE)
        end(outcomes)
        refuse_left_out(found.refused)


def _chosen(ids: Sequence[str], known: Sequence[Claim]) -> list[Claim]:
    by_id = {claim.id: claim for claim in known}
    for name in ids:
        if name not in by_id:
            raise UserError(f"there is no claim {name!r}: choose from {', '.join(by_id)}")
    return [by_id[name] for name in dict.fromkeys(ids)] if ids else list(known)


def _run(
    wanted: Sequence[RunRequest],
    runs_dir: Path,
    data_root: Path | None,
    dry_run: bool,
    as_json: bool,
    debug: bool,
) -> list[Outcome] | None:
    """Execute the missing runs; None if only the plan was asked for."""
    from dpbench.cli.console import progress_on
    from dpbench.runs.estimates import TimeEstimates
    from dpbench.runs.sweep.execute import execute_cells
    from dpbench.runs.sweep.grid import plan_cells

    progress = progress_on(err)
    cells, mistakes = plan_cells(wanted, runs_dir, data_root, progress)
    refuse(mistakes)
    estimates = TimeEstimates(runs_dir)
    estimated = estimated_cells(TITLE, cells, estimates, progress)
    if dry_run:
        if as_json:
            print_json([plan_json(*each) for each in zip(cells, estimated, strict=True)])
        return None
    outcomes = execute_cells(cells, estimates, say_next, runs_dir, data_root, debug)
    if not as_json:
        print_outcomes(TITLE, outcomes)
    return outcomes


def _missing(chosen: Sequence[Claim], records: Sequence[RunRecord]) -> list[RunRequest]:
    """The runs of the chosen claims that have no record, each once, ordered by seed.

    With seeds in the outer loop all claims have some runs early. The runs measure the metrics of
    the claims and audit the mechanism.
    """
    from dpbench.claims.published import PRIVACY

    read: dict[Arm, set[Metric]] = {}
    for claim in chosen:
        for arm in claim.rule.arms:
            read.setdefault(arm, set()).update(claim.rule.metrics)
    runs = [(arm, seed) for arm in read for seed in arm.seeds]
    made = {run: _latest_version(*run, read[run[0]], records) for run in runs}
    wanted = {run for claim in chosen for run in _runs_to_make(claim, made)}
    missing = sorted(wanted, key=lambda run: (run[0].seeds.index(run[1]), runs.index(run)))
    if len(missing) < len(runs):
        err.say(f"{len(runs) - len(missing)} of {len(runs)} runs have a record")
    return [
        _request(arm, seed, tuple(sorted({PRIVACY, *(each.evaluator for each in read[arm])})))
        for arm, seed in missing
    ]


def _latest_version(
    arm: Arm, seed: int, metrics: Iterable[Metric], records: Sequence[RunRecord]
) -> int:
    """The latest schema version of a run's records that a claim can be judged by; 0 for none."""
    return max(
        (
            record.spec.schema_version
            for record in records
            if arm.has(record)
            and record.spec.seed == seed
            and record.own_public_weights
            and all(_is_settled(metric, record) for metric in metrics)
        ),
        default=0,
    )


def _runs_to_make(claim: Claim, made: Mapping[tuple[Arm, int], int]) -> list[tuple[Arm, int]]:
    """The runs that a claim lacks, given the latest version of each run's records.

    Measurements by evaluators whose version is unknown are not compared with later ones. So if any
    run is missing, or was made again, earlier records of the others do not count.
    """
    from dpbench.records.run_record import SCHEMA_VERSION

    runs = [(arm, seed) for arm in claim.rule.arms for seed in arm.seeds]
    versions = {made[run] for run in runs}
    if len(versions) == 1 and 0 not in versions:
        return []
    return [run for run in runs if made[run] < SCHEMA_VERSION]


def _is_settled(metric: Metric, record: RunRecord) -> bool:
    """Whether a record has a value of a metric, or a reason that will not change."""
    found = metric.of(record)
    if found is None:
        return False
    status = record.evaluators.get(metric.evaluator)
    return found.value is not None or (status is not None and status.outcome == "measured")


def _request(arm: Arm, seed: int, evaluators: tuple[str, ...]) -> RunRequest:
    from dpbench.runs.request import RunRequest

    return RunRequest(
        method=arm.method,
        dataset=arm.dataset,
        epsilon=arm.epsilon,
        delta=arm.delta,
        adjacency=arm.adjacency,  # type: ignore[arg-type]  # checked by PrivacyBudget
        seed=seed,
        profile=arm.profile,
        settings=arm.assignments,
        evaluators=evaluators,
    )


def _print_verdicts(verdicts: Sequence[ClaimVerdict]) -> None:
    table = new_table(TITLE)
    for column in ("claim", "verdict"):
        table.add_column(column, overflow="fold")
    for column in ("estimate", "95% CI", "against", "seeds", "p (Holm)"):
        table.add_column(column, justify="right")
    for column in ("of", "reason"):
        table.add_column(column, overflow="fold")
    for each in verdicts:
        found = each.evidence
        table.add_row(
            each.claim.id,
            each.decision,
            "" if each.estimate is None else f"{each.estimate:.4g} {found.unit}".rstrip(),
            "" if each.low is None else f"{each.low:.4g} to {each.high:.4g}",
            f"{found.null:g}",
            str(len(found.values)),
            "" if each.p_value is None else f"{each.p_value:.2g}",
            f"{found.estimand} ({found.profile})",
            each.reason,
        )
    out.print(table)
