"""The command line: the only place that prints.

``--help`` and ``list`` must be instant, so torch, and whatever needs it, is imported by the
commands that use it.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import dpbench
from dpbench.errors import UNHEARD, RunFailed, Unheard, UserError

if TYPE_CHECKING:
    from dpbench.privacy.audit import Audit
    from dpbench.privacy.replay import Comparison
    from dpbench.record import RunRecord
    from dpbench.report.leaderboard import Row
    from dpbench.run import PlannedRun
    from dpbench.verify import Verdict

INTERRUPTED = 130
out, err = Console(), Console(stderr=True)
app = typer.Typer(
    name="dpbench",
    help="A benchmark of differentially private image generation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Method = Annotated[str, typer.Option(help="Generator or baseline: `dpbench list methods`.")]
DatasetName = Annotated[str, typer.Option(help="Data set: `dpbench list datasets`.")]
Epsilon = Annotated[
    float | None,
    typer.Option("--eps", help="Privacy budget; inf for none. Default: 1 (inf for baselines)."),
]
Delta = Annotated[float, typer.Option(help="Probability with which epsilon may fail.")]
AdjacencyName = Annotated[
    str, typer.Option(help="Neighbouring data sets: add_remove or replace_one.")
]
Seed = Annotated[int, typer.Option(help="Public seed of everything but the privacy noise.")]
ProfileName = Annotated[str, typer.Option(help="Size of the run: `dpbench list profiles`.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a hyper-parameter; may be repeated."),
]
RunsDir = Annotated[Path, typer.Option(help="Where runs are kept.")]
RunFolder = Annotated[
    Path | None, typer.Option("--out", help="This run's folder, instead of one in --runs-dir.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="DPBENCH_DATA", help="Where to look for data first."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What computes private gradients: auto (the fastest here), folded, vmap, loop or "
        "opacus. All give the same numbers.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Share private training out over so many processes of this machine, each with a CUDA "
        "device of its own, or its part of the cores. For several machines use torchrun -m dpbench "
        "run.",
    ),
]
Reproducible = Annotated[
    bool,
    typer.Option(
        "--reproducible",
        help="Derive the privacy noise from the seed too: the run is void for release.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Discard an earlier run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Repeats = Annotated[int, typer.Option(min=1, help="Timed repeats, after one to warm up.")]
Networks = Annotated[
    list[str] | None,
    typer.Option("--network", help="May be repeated; default: those that take a CPU seconds."),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", help="float32, bfloat16; may be repeated; default: both."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]


def main() -> None:
    """Run the command line; exit codes are 0, 1 (failed), 2 (user's mistake), 130 (interrupted)."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        # typer's usage errors, whichever copy of click they come from
        if not hasattr(error, "format_message"):
            raise
        if message := error.format_message():  # none where there were no arguments, but help
            _say_error(message)
        code = getattr(error, "exit_code", 2)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _outcome(debug: bool, interrupted: str = "Interrupted.") -> Iterator[None]:
    """Turn how a command ends into one line and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except Unheard:
        raise typer.Exit(UNHEARD) from None
    except KeyboardInterrupt:
        from dpbench.launch import is_first

        if not is_first():
            raise typer.Exit(UNHEARD) from None
        err.print(interrupted)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, UserError | RunFailed):
            _say_error(str(error))
        else:
            _say_error(f"{type(error).__name__}: {error} (--debug shows where)")
        raise typer.Exit(2 if isinstance(error, UserError) else 1) from None


def _say_error(message: str) -> None:
    line = " ".join(message.split())
    err.print(f"[bold red]Error:[/] {escape(line)}", soft_wrap=True, highlight=False)


def _print_json(content: Any) -> None:
    from dpbench.record import to_json

    typer.echo(json.dumps(to_json(content), indent=2, allow_nan=False))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(dpbench.__version__)
        raise typer.Exit


@app.command()
def run(
    method: Method,
    dataset: DatasetName,
    eps: Epsilon = None,
    delta: Delta = 1e-5,
    adjacency: AdjacencyName = "add_remove",
    seed: Seed = 0,
    profile: ProfileName = "laptop",
    settings: Settings = None,
    runs_dir: RunsDir = Path("runs"),
    out_folder: RunFolder = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    processes: Processes = None,
    reproducible: Reproducible = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a method under a privacy budget, sample from it and score the samples.

    An interrupted run continues where it stopped when the same command is given again.
    """
    with _outcome(debug, "Interrupted: the same command continues where this one stopped."):
        from dpbench.launch import end_with_launcher, is_rank, launch

        if processes not in (None, 1) and not is_rank():
            raise typer.Exit(launch(processes, sys.argv[1:]))
        end_with_launcher()
        from dpbench import run as runs
        from dpbench.console import progress_on
        from dpbench.ranks import joined

        request = runs.Request(
            method=method,
            dataset=dataset,
            epsilon=eps,
            delta=delta,
            adjacency=adjacency,  # type: ignore[arg-type]  # checked by PrivacyBudget
            seed=seed,
            profile=profile,
            settings=tuple(settings or ()),
            reproducible=reproducible,
            device=device,
            engine=engine,
        )
        with joined(processes) as ranks:
            planned = runs.plan(request, ranks)
            if not ranks.first:
                if not dry_run:
                    runs.assist(planned, data_root)
                return
            _print_plan(planned)
            if dry_run:
                if as_json:
                    _print_json(_plan_json(planned))
                return
            record, folder = runs.execute(
                planned, progress_on(err), runs_dir, out_folder, data_root, overwrite, debug
            )
        if as_json:
            typer.echo(record.dumps(), nl=False)
        else:
            _print_result(record, folder)


def _plan_json(planned: PlannedRun) -> dict[str, Any]:
    from dpbench.privacy.accounting import event_to_json

    return {
        "method": planned.request.method,
        "dataset": planned.dataset.name,
        "epsilon": planned.budget.epsilon,
        "delta": planned.budget.delta,
        "adjacency": planned.budget.adjacency,
        "profile": planned.profile.name,
        "preset": planned.resolved.source,
        "method_args": dict(planned.resolved.arguments),
        "parameters": planned.plan.parameters,
        "events": [event_to_json(event) for event in planned.plan.events],
        "stages": [
            {
                "name": stage.name,
                "steps": stage.steps,
                "evaluations": stage.evaluations,
                "private": stage.private,
            }
            for stage in planned.plan.stages
        ],
        "private_evaluations": planned.plan.evaluations(private=True),
        "public_evaluations": planned.plan.evaluations(private=False),
        "estimated_train_seconds": planned.estimated_seconds,
    }


def _print_plan(planned: PlannedRun) -> None:
    from dpbench.console import duration
    from dpbench.privacy.accounting import DPSGDEvent

    budget, compute = planned.budget, planned.profile.compute
    guarantee = (
        f"epsilon {budget.epsilon:g}, delta {budget.delta:g}, {budget.adjacency}"
        if budget.private
        else "none: this run is not private"
    )
    lines = [
        ("method", f"{planned.request.method} on {planned.dataset.name}"),
        ("profile", f"{planned.profile.name}: {planned.profile.description}"),
        ("preset", planned.resolved.source),
        ("guarantee", guarantee),
    ]
    if planned.plan.parameters:
        lines.append(("network", f"{planned.plan.parameters:,} parameters on {planned.device}"))
    if planned.ranks.size > 1:
        lines.append(("processes", f"{planned.ranks.size}, which share private training out"))
    for event in planned.plan.events:
        text = f"noise multiplier {event.noise_multiplier:.4g}"
        if isinstance(event, DPSGDEvent):
            text += f", sample rate {event.sample_rate:.4g}, {event.steps:,} steps"
        lines.append((event.purpose, text))
    for stage in planned.plan.stages:
        text = f"{stage.steps:,} steps, {stage.evaluations:,} gradient evaluations"
        lines.append((stage.name, text))
    if planned.plan.stages:
        used = [
            f"{planned.plan.evaluations(private):,} of {limit:,} {word}"
            for private, word, limit in (
                (True, "private", compute.private_evaluations),
                (False, "public", compute.public_evaluations),
            )
        ]
        seconds = planned.estimated_seconds
        lines.append(("compute", ", ".join(used) + " evaluations"))
        lines.append(("training time", f"about {duration(seconds)} on this machine"))
        if seconds > 1.5 * compute.train_seconds:
            lines.append(("note", f"the profile means {duration(compute.train_seconds)}"))
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(f"[bold]{escape(name)}[/]", escape(text))
    err.print(table)


def _print_result(record: RunRecord, folder: Path) -> None:
    from dpbench.record import RECORD
    from dpbench.run import GRID

    table = _table(f"{record.spec.method} on {record.spec.dataset}")
    for column in ("metric", "against", "value", "", "n", "by"):
        justify: Literal["left", "right"] = "right" if column in ("value", "n") else "left"
        table.add_column(column, justify=justify, overflow="fold")
    missing: dict[str, list[str]] = {}
    for m in record.measurements:
        if m.value is None:
            missing.setdefault(m.reason, []).append(m.metric)
        else:
            table.add_row(m.metric, m.split, f"{m.value:.4g}", m.unit, f"{m.n:,}", m.extractor)
    if table.rows:
        out.print(table)
    lines = [
        (f"no {', '.join(dict.fromkeys(metrics))}", reason) for reason, metrics in missing.items()
    ]
    privacy = record.privacy
    if privacy["release"] != "not private":
        lines.append(
            (
                "privacy",
                f"epsilon {float(privacy['epsilon']):.6g}, delta {privacy['delta']:g}, "
                f"{privacy['adjacency']} ({privacy['accountant']})",
            )
        )
    lines += [
        ("release", privacy["release"]),
        ("record", str(folder / RECORD)),
    ]
    if GRID in record.artifacts:
        lines.append(("samples", str(folder / GRID)))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        # never wrapped by us, so that paths can be copied
        out.print(f"{label:{width}}  {text}", soft_wrap=True, highlight=False, markup=False)


def _table(title: str) -> Table:
    return Table(
        title=f"\n[bold]{escape(title)}[/]",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )


@app.command()
def audit(
    method: Method,
    dataset: DatasetName,
    eps: Epsilon = None,
    delta: Delta = 1e-5,
    adjacency: AdjacencyName = "add_remove",
    seed: Seed = 0,
    profile: ProfileName = "laptop",
    settings: Settings = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Put canaries through the mechanisms of a planned run and look for what refutes its claim.

    Takes seconds and reads no data. Ends with exit code 1 where a check raises an alarm.
    """
    with _outcome(debug):
        from dpbench import run as runs
        from dpbench.console import progress_on
        from dpbench.privacy.audit import audit as audit_mechanism
        from dpbench.privacy.execution import Executions, engine_cache

        request = runs.Request(
            method=method,
            dataset=dataset,
            epsilon=eps,
            delta=delta,
            adjacency=adjacency,  # type: ignore[arg-type]  # checked by PrivacyBudget
            seed=seed,
            profile=profile,
            settings=tuple(settings or ()),
            device=device,
        )
        planned = runs.plan(request)
        progress = progress_on(err)
        executions = Executions(engine, cache=engine_cache(), decided=progress.note)
        mechanism = runs.mechanism(planned, planned.plan.events, executions)
        found = audit_mechanism(mechanism, seed, progress)
        if as_json:
            _print_json(_audit_json(planned, found))
        else:
            _print_audit(f"{method} on {dataset}, epsilon {planned.budget.epsilon:g}", found)
        if found.alarms:
            raise RunFailed(f"{found.verdict} of {method}: {', '.join(_alarm_names(found))}")


def _alarm_names(found: Audit) -> list[str]:
    return [f"{check.name} ({check.of})" for check in found.alarms]


def _audit_json(planned: PlannedRun, found: Audit) -> dict[str, Any]:
    from dpbench.privacy.accounting import event_to_json

    return {
        "method": planned.request.method,
        "dataset": planned.dataset.name,
        "delta": planned.budget.delta,
        "adjacency": planned.budget.adjacency,
        "profile": planned.profile.name,
        "seed": planned.request.seed,
        "events": [event_to_json(event) for event in planned.plan.events],
        **asdict(found),
        "alarms": _alarm_names(found),
        "limits": found.limits,
    }


def _print_audit(title: str, found: Audit) -> None:
    table = _table(title)
    for column in ("check", "of"):
        table.add_column(column, overflow="fold")
    for column in ("claimed", "seen", ""):
        table.add_column(column, justify="right")
    for check in found.checks:
        seen = f"{check.low:.4g}"
        if check.high == math.inf:
            seen = f"at least {seen}"
        elif check.high != check.low:
            seen += f" to {check.high:.4g}"
        mark = "[bold red]ALARM[/]" if check.alarm else "ok"
        table.add_row(check.name, escape(check.of), f"{check.claimed:g}", seen, mark)
    out.print(table)
    guessed = f"{found.correct} of {found.guesses} guesses right, {found.canaries} canaries"
    for label, text in (
        ("verdict", f"{found.verdict}; each check errs with probability {found.level:.2g}"),
        ("epsilon", f"at least {found.epsilon_lower:.3g} in this audit ({guessed})"),
        ("if normal", f"at least {found.epsilon_lower_gdp:.3g}: parametric, no claim"),
        ("limits", found.limits),
    ):
        out.print(f"{label:9}  {text}", soft_wrap=True, highlight=False, markup=False)


@app.command("list")
def list_(
    what: Annotated[
        str | None, typer.Argument(help="methods, datasets, evaluators or profiles; default: all.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Import everything and say what is broken.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List what there is, by name."""
    with _outcome(debug):
        listings = {
            "methods": lambda: _list_entries("method", check),
            "datasets": _list_datasets,
            "evaluators": lambda: _list_entries("evaluator", check),
            "profiles": _list_profiles,
        }
        if what is not None and what not in listings:
            raise UserError(f"there is no list of {what!r}: choose {', '.join(listings)}")
        chosen = {name: listings[name]() for name in ([what] if what else listings)}
        if as_json:
            _print_json(chosen[what] if what else chosen)
        else:
            for name, items in chosen.items():
                _print_items(name, items)
        if any(item.get("broken") for items in chosen.values() for item in items):
            raise typer.Exit(1)


def _list_entries(kind: str, check: bool) -> list[dict[str, Any]]:
    from dpbench.registry import entries, load

    items: list[dict[str, Any]] = []
    for entry in entries(kind).values():  # type: ignore[arg-type]
        item: dict[str, Any] = {
            "name": entry.name,
            "family": entry.family,
            "from": f"{entry.distribution} {entry.version}",
        }
        if check:
            try:
                item["summary"] = load(kind, entry.name).summary  # type: ignore[arg-type]
            except UserError as error:
                item["broken"] = str(error)
        items.append(item)
    return items


def _list_datasets() -> list[dict[str, Any]]:
    from dpbench.data.catalog import CATALOG

    return [
        {
            "name": info.name,
            "shape": list(info.shape),
            "classes": info.classes,
            "train": info.train,
            "test": info.test,
            "description": info.description,
        }
        for info in CATALOG.values()
    ]


def _list_profiles() -> list[dict[str, Any]]:
    from dpbench.profiles import PROFILES

    return [
        {
            "name": profile.name,
            "samples": profile.samples,
            "private_evaluations": profile.compute.private_evaluations,
            "public_evaluations": profile.compute.public_evaluations,
            "train_seconds": profile.compute.train_seconds,
            "description": profile.description,
        }
        for profile in PROFILES.values()
    ]


def _print_items(name: str, items: list[dict[str, Any]]) -> None:
    table = _table(name)
    columns = list(dict.fromkeys(key for item in items for key in item))
    for column in columns:
        number = isinstance(items[0].get(column), int | float)
        table.add_column(
            column.replace("_", "\n"),
            justify="right" if number else "left",
            no_wrap=number or column == "name",
        )
    for item in items:
        table.add_row(*(escape(_said(item.get(column, ""))) for column in columns))
    out.print(table)


def _said(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="Generator or baseline: `dpbench list methods`.")],
    dataset: DatasetName = "digits",
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check by neighbour replay that a method learns through its mechanisms alone.

    The method is fitted, with its smoke preset and without noise, on a data set and on neighbours
    of it; what the first fit released is held fixed in the others. Each release may differ by at
    most its sensitivity, and nothing else may differ.
    """
    with _outcome(debug):
        from dpbench.check import check as compare
        from dpbench.console import progress_on
        from dpbench.privacy.replay import NOT_SHOWN

        comparisons = compare(method, dataset, data_root, progress_on(err))
        failed = [each for each in comparisons if not each.ok]
        if as_json:
            rows = [{**asdict(each), "ok": each.ok} for each in comparisons]
            _print_json(
                {
                    "method": method,
                    "dataset": dataset,
                    "ok": not failed,
                    "comparisons": rows,
                    "not_shown": list(NOT_SHOWN),
                }
            )
        else:
            _print_comparisons(f"{method} on {dataset}", comparisons)
            out.print("These neighbours and draws only: a check, not a proof. It does not show")
            for each in NOT_SHOWN:
                out.print(f"- {each}", soft_wrap=True, highlight=False)
        if failed:
            raise RunFailed(
                f"{method} failed {len(failed)} of {len(comparisons)} comparisons: what is marked "
                "with NO depends on a private image by more than is accounted for"
            )


def _print_comparisons(title: str, comparisons: Sequence[Comparison]) -> None:
    """The release that differs most for each neighbour and purpose; other things if they do."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for each in comparisons:
        purpose = each.purpose if each.release is not None or not each.ok else "all else"
        groups.setdefault((each.neighbour, purpose), []).append(each)
    table = _table(title)
    for column in ("neighbour", "purpose", "release", "difference", "sensitivity", "ok"):
        right = column in ("release", "difference", "sensitivity")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for (neighbour, purpose), group in groups.items():
        worst = max(group, key=lambda each: each.difference)
        ok = "yes" if all(each.ok for each in group) else "[bold red]NO[/]"
        if worst.release is None:
            values = ("", "none" if worst.ok else "some", "none")
        else:
            release = f"{worst.release + 1} of {len(group)}"
            values = (release, f"{worst.difference:.6g}", f"{worst.sensitivity:g}")
        table.add_row(escape(neighbour), escape(purpose), *values, ok)
    out.print(table)


@app.command()
def report(
    runs_dir: RunsDir = Path("runs"),
    leaderboards: Annotated[
        Path, typer.Option("--out", help="Where records are collected and CSVs written.")
    ] = Path("leaderboards"),
    check: Annotated[
        bool,
        typer.Option("--check", help="Only say whether the CSVs are what their records give."),
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Derive the leaderboards from records: one CSV per data set, and a table here."""
    with _outcome(debug):
        from dpbench.report import leaderboard

        if not check:
            _, incomplete = leaderboard.collect(runs_dir, leaderboards)
            for file in incomplete:
                err.print(f"left out, not complete: {escape(str(file))}", soft_wrap=True)
        rows = leaderboard.rows(leaderboards)
        stale = leaderboard.stale(rows, leaderboards)
        if check and stale:
            names = ", ".join(map(str, stale))
            raise RunFailed(f"{names}: not what the records give; run `dpbench report`")
        if not rows:
            raise UserError(
                f"no complete run in {runs_dir} or {leaderboards}: `dpbench run` makes one"
            )
        if not check:
            for file in leaderboard.write(rows, leaderboards):
                err.print(f"wrote {escape(str(file))}", soft_wrap=True, highlight=False)
        if as_json:
            _print_json([asdict(row) for row in rows])
        else:
            _print_rows(rows)
            if any(row.audited_epsilon_lower is not None for row in rows):
                out.print(leaderboard.AUDIT_NOTE, highlight=False)


def _print_rows(rows: list[Row]) -> None:
    for dataset in dict.fromkeys(row.dataset for row in rows):
        table = _table(dataset)
        for column in ("profile", "method", "metric", "against"):
            table.add_column(column, overflow="fold")
        for column in ("eps", "mean", "95% CI", "seeds"):
            table.add_column(column, justify="right")
        for row in rows:
            if row.dataset != dataset or row.mean is None:
                continue
            interval = "1 seed" if row.ci_low is None else f"{row.ci_low:.4g} to {row.ci_high:.4g}"
            table.add_row(
                row.profile,
                escape(row.method),
                row.metric,
                row.split,
                f"{row.epsilon:g}",
                f"{row.mean:.4g} {row.unit}".rstrip(),
                interval,
                str(row.seeds),
            )
        out.print(table)


@app.command()
def verify(
    records: Annotated[
        list[Path], typer.Argument(metavar="RECORD...", help="Records, or folders of runs.")
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check privacy claims: epsilon again from the events, and all that the record says twice.

    Exit code 0: verified; 1: rejected, with a line for each thing that is wrong; 2: no record.
    """
    with _outcome(debug):
        from dpbench.console import progress_on
        from dpbench.verify import record_at
        from dpbench.verify import verify as verified

        verdicts, unreadable = [], []
        with progress_on(err).task("verifying", len(records), "records") as task:
            for path in records:
                try:
                    verdicts.append(verified(record_at(path)))
                except UserError as error:  # the others are checked all the same
                    unreadable.append(str(error))
                task.advance(1)
        if as_json:
            _print_json([_verdict_json(verdict) for verdict in verdicts])
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
    out.print("\n  ".join(lines), soft_wrap=True, highlight=False, markup=False)


bench_app = typer.Typer(no_args_is_help=True)
app.add_typer(bench_app, name="bench", help="Time the parts of a run next to their yardsticks.")


@bench_app.command("step")
def bench_step(
    networks: Networks = None,
    multiplicities: Annotated[
        list[int] | None,
        typer.Option("--multiplicity", min=1, help="K; may be repeated; default: 1, 8 and 32."),
    ] = None,
    precisions: Precisions = None,
    engines: Annotated[
        list[str] | None, typer.Option("--engine", help="May be repeated; default: every one.")
    ] = None,
    copies: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Images x K of a step; may be repeated; default: a physical batch a core."
        ),
    ] = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time private training steps, engine by engine, next to the step without privacy."""
    with _outcome(debug):
        from dpbench.bench import step
        from dpbench.console import progress_on

        rows = step.bench_step(
            networks or [],
            multiplicities or [],
            precisions or [],
            engines or [],
            copies or [],
            repeats,
            device,
            progress_on(err),
        )
        _print_bench(
            "training steps",
            rows,
            ("network", "precision", "engine"),
            {
                "K": lambda row: f"{row.multiplicity}",
                "copies": lambda row: f"{row.copies:,}",
                "images/s": lambda row: f"{row.images_per_s:,.0f}",
                "spread": lambda row: _spread(
                    row.images_per_s_low, row.images_per_s, row.images_per_s_high
                ),
                "of non-\nprivate": lambda row: "" if row.ratio is None else f"{row.ratio:.2f}",
                "peak MB": lambda row: f"{row.peak_mb:,.0f}",
            },
            as_json,
        )


@bench_app.command("sample")
def bench_sample(
    networks: Networks = None,
    precisions: Precisions = None,
    images: Annotated[int, typer.Option(min=1, help="To draw at a time.")] = 500,
    repeats: Repeats = 5,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time sampling next to nothing but the network evaluations that it consists of."""
    with _outcome(debug):
        from dpbench.bench import sample
        from dpbench.console import progress_on

        rows = sample.bench_sample(
            networks or [], precisions or [], images, repeats, device, progress_on(err)
        )
        _print_bench(
            "sampling",
            rows,
            ("network", "precision", "solver"),
            {
                "eval-\nuations": lambda row: f"{row.evaluations:g}",
                "images/s": lambda row: f"{row.images_per_s:,.0f}",
                "spread": lambda row: _spread(
                    row.images_per_s_low, row.images_per_s, row.images_per_s_high
                ),
                "forward\nonly": lambda row: f"{row.forward_only_images_per_s:,.0f}",
                "ratio": lambda row: f"{row.ratio:.2f}",
            },
            as_json,
        )


@bench_app.command("accounting")
def bench_accounting(
    epsilons: Annotated[
        list[float] | None,
        typer.Option("--eps", help="May be repeated; default: 0.2, 1 and 10."),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="May be repeated; default: 732, 2197 and 14648."),
    ] = None,
    repeats: Repeats = 5,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time the calibration of the noise next to Opacus', and compare what it finds."""
    with _outcome(debug):
        from dpbench.bench import accounting
        from dpbench.console import progress_on

        rows = accounting.bench_accounting(epsilons or [], steps or [], repeats, progress_on(err))
        _print_bench(
            f"calibration at sample rate {accounting.SAMPLE_RATE:.4g}",
            rows,
            ("accountant",),
            {
                "epsilon": lambda row: f"{row.epsilon:g}",
                "steps": lambda row: f"{row.steps:,}",
                "noise\nmultiplier": lambda row: f"{row.noise_multiplier:.4g}",
                "epsilon\nby ours": lambda row: f"{row.accounted_epsilon:.4g}",
                "seconds": lambda row: f"{row.seconds:.2f}",
                "spread": lambda row: _spread(row.seconds_low, row.seconds, row.seconds_high),
            },
            as_json,
        )


@bench_app.command("startup")
def bench_startup(repeats: Repeats = 5, as_json: AsJson = False, debug: Debug = False) -> None:
    """Time how long the command line takes to start."""
    with _outcome(debug):
        from dpbench.bench import startup
        from dpbench.console import progress_on

        _print_bench(
            "start-up",
            startup.bench_startup(repeats, progress_on(err)),
            ("command",),
            {
                "seconds": lambda row: f"{row.seconds:.3f}",
                "spread": lambda row: _spread(row.seconds_low, row.seconds, row.seconds_high),
                "of bare\npython": lambda row: f"{row.ratio:.1f}",
            },
            as_json,
        )


def _spread(low: float, median: float, high: float) -> str:
    return f"{low / median - 1:+.0%} {high / median - 1:+.0%}"


def _print_bench(
    title: str,
    rows: Sequence[Any],
    names: Sequence[str],
    numbers: Mapping[str, Callable[[Any], str]],
    as_json: bool,
) -> None:
    """Print rows as JSON, or as a table of the fields ``names`` and of ``numbers`` by heading."""
    if as_json:
        _print_json([asdict(row) for row in rows])
        return
    table = _table(f"{title}: medians, and the smallest and largest beside them")
    for name in names:
        table.add_column(name)
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        texts = [getattr(row, name) for name in names]
        if getattr(row, "reason", ""):
            err.print(f"no {', '.join(texts)}: {escape(row.reason)}", soft_wrap=True)
        else:
            table.add_row(*texts, *(text(row) for text in numbers.values()))
    out.print(table)
