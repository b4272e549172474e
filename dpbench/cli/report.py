"""``dpbench report``: derive the leaderboards from records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dpbench.cli.app import err, new_table, out, outcome, print_json
from dpbench.cli.options import AsJson, Debug, RunsDir
from dpbench.core.errors import RunFailed, UserError

if TYPE_CHECKING:
    from dpbench.report.comparisons import Comparison
    from dpbench.report.leaderboard import Row


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
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Derive the leaderboards from records: CSVs, figures, claims and index.html."""
    with outcome(debug):
        from dpbench.report import claims, collect, comparisons, files, leaderboard, overview
        from dpbench.report.curves import curve_of

        if not check:
            _, incomplete = collect.collect(runs_dir, leaderboards)
            collect.collect_scores(evaluations, leaderboards)
            for file in incomplete:
                err.print(f"left out because it is incomplete: {escape(str(file))}", soft_wrap=True)
        rows = leaderboard.rows(leaderboards)
        compared = comparisons.compare(rows)
        texts = leaderboard.files(rows, leaderboards) | comparisons.files(compared, leaderboards)
        if rows:
            verdicts = claims.judge(collect.committed_records(leaderboards))
            texts |= claims.files(verdicts, leaderboards)
            texts |= overview.files(rows, compared, verdicts, leaderboards)
        stale = files.stale(texts, leaderboards)
        if check and stale:
            names = ", ".join(map(str, stale))
            raise RunFailed(f"{names}: not what the records give; run `dpbench report`")
        if not rows:
            raise UserError(
                f"no complete run in {runs_dir} or {leaderboards}: `dpbench run` makes one"
            )
        if not check:
            files.write(texts)
            written = list(texts)
            if any(curve_of(row.metric) for row in rows):
                from dpbench.report import figures  # matplotlib takes long to import

                written += figures.write(rows, leaderboards)
            for file in written:
                err.print(f"wrote {escape(str(file))}", soft_wrap=True, highlight=False)
        if as_json:
            print_json([row.columns() for row in rows])
        else:
            _print_rows([row for row in rows if curve_of(row.metric) is None])
            if any(row.scores for row in rows):
                out.print(leaderboard.INTERVAL_NOTE, highlight=False)
            _print_comparisons(compared)
            if not compared:
                out.print(comparisons.NONE, highlight=False)
            if any(row.audited_epsilon_lower is not None for row in rows):
                out.print(leaderboard.AUDIT_NOTE, highlight=False)


def _print_rows(rows: list[Row]) -> None:
    for dataset in dict.fromkeys(row.dataset for row in rows):
        table = new_table(dataset)
        for column in ("profile", "method", "metric", "against"):
            table.add_column(column, overflow="fold")
        for column in ("eps", "mean", "95% CI", "seeds", "rank"):
            table.add_column(column, justify="right")
        for row in rows:
            if row.dataset != dataset or row.mean is None:
                continue
            table.add_row(
                row.profile,
                escape(row.method),
                row.metric,
                row.split,
                row.epsilon_said,
                f"{row.mean:.4g} {row.unit}".rstrip(),
                row.interval_said,
                str(row.seeds),
                _rank(row),
            )
        out.print(table)


def _print_comparisons(compared: list[Comparison]) -> None:
    for dataset in dict.fromkeys(each.dataset for each in compared):
        table = new_table(f"{dataset}: method A less method B, on the same test images")
        for column in ("profile", "metric", "A", "B"):
            table.add_column(column, overflow="fold")
        for column in ("eps", "A - B", "95% CI", "adjusted p", "seeds"):
            table.add_column(column, justify="right")
        for each in compared:
            if each.dataset == dataset:
                table.add_row(
                    each.profile,
                    each.metric,
                    escape(each.method_a),
                    escape(each.method_b),
                    f"{each.epsilon:g}",
                    f"{each.difference:.4g} {each.unit}".rstrip(),
                    f"{each.ci_low:.4g} to {each.ci_high:.4g}",
                    f"{each.adjusted_p_value:.2g}",
                    f"{each.seeds_a}, {each.seeds_b}",
                )
        out.print(table)


def _rank(row: Row) -> str:
    """Ranks that the intervals allow: empty for one seed, a range for ties."""
    if row.rank_low is None:
        return ""
    return str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"
