"""``dpbench report``: derive the leaderboards from records."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpbench.cli.app import err, new_table, out, outcome, print_json, say_error
from dpbench.cli.options import AsJson, Debug, RunsDir, check_read
from dpbench.core.errors import RunFailed, UserError, unknown
from dpbench.core.text import visible

if TYPE_CHECKING:
    import pandas as pd


def report(
    runs_dir: RunsDir = Path("runs"),
    leaderboards: Annotated[
        Path,
        typer.Option("--out", help="Folder of the collected records, CSVs, figures and pages."),
    ] = Path("leaderboards"),
    evaluations: Annotated[
        Path, typer.Option(help="Folder with scores of samples of unknown origin.")
    ] = Path("evaluations"),
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only check that the CSVs and pages are what the records give; write nothing.",
        ),
    ] = False,
    replace: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Replace the committed record of this id (8 digits or more) by another run's.",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Also show runs of profile smoke and runs void for release."),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Print the rows of this metric and the comparisons of methods by it; cas_* stands "
            "for all that begin so. Default: a line for each method and budget.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Derive leaderboards, figures, claims and pages from records."""
    with outcome(debug):
        from dpbench.core.cache import user_cache
        from dpbench.core.files import check_writable
        from dpbench.records.accounts import Accounts
        from dpbench.report import collect, files, leaderboard, overview
        from dpbench.report.derive import derive
        from dpbench.report.metrics import BEST_FIRST
        from dpbench.report.tables import to_rows

        check_read(runs_dir, "runs")
        check_read(evaluations, "evaluations")
        if not check:
            check_writable(leaderboards, "choose another --out")
        accounts, found = Accounts(user_cache()), collect.Collected()
        if not check:
            found = collect.collect(runs_dir, leaderboards, accounts, replace or ())
            collect.collect_scores(evaluations, leaderboards, found)
        for file in found.incomplete:
            err.say(f"left out because it is incomplete: {file}")
        for line in found.refused:
            say_error(f"left out: {line}")
        derived = derive(leaderboards, accounts, found.files, everything)
        accounts.save()
        for alarm in derived.alarms:
            err.say(alarm, "red")
        for line in () if check or as_json else derived.spent:
            out.print(visible(line))
        if derived.left_out:
            err.say(
                f"left out: {derived.left_out} of profile smoke or void for release; "
                "--all takes them in"
            )
        stale = files.stale(derived.texts, leaderboards)
        if check and stale:
            names = ", ".join(map(str, stale))
            raise RunFailed(f"{names}: not what the records give; run `dpbench report`")
        table = derived.table
        if not check:
            from dpbench.report import figures  # matplotlib takes long to import

            drawn = {} if table.empty else figures.draw(table, leaderboards)
            files.write({**found.files, **derived.texts, **drawn}, leaderboards)
            for file in (*derived.texts, *drawn):
                err.say(f"wrote {file}")
        if table.empty:
            raise UserError(
                f"no complete run in {runs_dir} or {leaderboards}: `dpbench run` makes one"
            )
        if as_json:
            print_json(to_rows(table[list(leaderboard.COLUMNS)]))
        elif metric is not None:
            _print_metric(table, derived.compared, metric)
        elif check:
            out.say(f"{leaderboards} is what its records give: {len(derived.texts)} files")
        else:
            _print_overview(overview.datasets(table, derived.compared))
            out.say(f"page  {leaderboards / overview.PAGE}")
            out.say(f"more  dpbench report --metric {BEST_FIRST}")
        refuse_left_out(found.refused)


def refuse_left_out(refused: Sequence[str]) -> None:
    """End a command that left records out, after all else is done.

    Raises:
        RunFailed: There are some.
    """
    if refused:
        what = "1 record was" if len(refused) == 1 else f"{len(refused)} records were"
        raise RunFailed(f"{what} left out: see above")


def _print_overview(datasets: Sequence[dict[str, Any]]) -> None:
    for dataset in datasets:
        for profile in dataset["profiles"]:
            table = new_table(f"{dataset['name']}, profile {profile['name']}")
            table.add_column("method", overflow="fold")
            for column in ("eps", "seeds", *profile["metrics"]):
                table.add_column(column, justify="right", no_wrap=True)
            alarms = any(line["alarms"] not in ("", "none") for line in profile["lines"])
            if alarms:
                table.add_column("alarms", no_wrap=True)
            for line in profile["lines"]:
                means = [", ".join(score["mean"] for score in each) for each in line["scores"]]
                heard = (line["alarms"],) if alarms else ()
                first = (line["method"], line["epsilon"], str(line["seeds"]))
                table.add_row(*first, *means, *heard)
            out.print(table)
            for note in profile["footnotes"]:
                out.print(visible(f"* {note}"))


def _print_metric(table: pd.DataFrame, compared: pd.DataFrame, pattern: str) -> None:
    """Print all rows of the metrics of a name, and what is said of methods by them.

    Raises:
        UserError: There is no such metric.
    """
    from dpbench.report import comparisons, leaderboard

    asked = table[table["metric"].map(lambda name: fnmatchcase(name, pattern))]
    if asked.empty:
        raise UserError(unknown("metric", pattern, sorted(set(table["metric"]))))
    _print_leaderboard(asked)
    if asked["resampled"].notna().any():
        out.print(leaderboard.INTERVAL_NOTE)
    by_them = compared[compared["metric"].isin(asked["metric"])]
    _print_comparisons(by_them)
    if by_them.empty:
        out.print(comparisons.NONE)
    if asked["audited_epsilon_lower"].notna().any():
        out.print(leaderboard.AUDIT_NOTE)


def _print_leaderboard(table: pd.DataFrame) -> None:
    from dpbench.report.tables import epsilon_text, interval_text, rank_text

    for dataset, own in table.groupby("dataset", sort=False):
        printed = new_table(str(dataset))
        for column in ("profile", "method"):
            printed.add_column(column, overflow="fold")
        for column in ("metric", "against"):
            printed.add_column(column, no_wrap=True)
        for column in ("eps", "mean", "95% CI", "seeds", "rank"):
            printed.add_column(column, justify="right")
        for _, row in own[own["mean"].notna()].iterrows():
            printed.add_row(
                row["profile"],
                row["method"],
                row["metric"],
                row["split"],
                epsilon_text(row["epsilon"]),
                f"{row['mean']:.4g} {row['unit']}".rstrip(),
                interval_text(row),
                str(row["seeds"]),
                rank_text(row),
            )
        out.print(printed)


def _print_comparisons(compared: pd.DataFrame) -> None:
    for dataset, own in compared.groupby("dataset", sort=False):
        table = new_table(f"{dataset}: method A less method B, on the same test images")
        for column in ("profile", "metric", "A", "B"):
            table.add_column(column, overflow="fold")
        for column in ("eps", "A - B", "95% CI", "adjusted p", "seeds"):
            table.add_column(column, justify="right")
        for _, row in own.iterrows():
            table.add_row(
                row["profile"],
                row["metric"],
                row["method_a"],
                row["method_b"],
                f"{row['epsilon']:g}",
                f"{row['difference']:.4g} {row['unit']}".rstrip(),
                f"{row['ci_low']:.4g} to {row['ci_high']:.4g}",
                f"{row['adjusted_p_value']:.2g}",
                f"{row['seeds_a']}, {row['seeds_b']}",
            )
        out.print(table)
