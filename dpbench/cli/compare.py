"""``dpbench compare``: two runs or two methods side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpbench.cli.app import new_table, out, outcome, print_json
from dpbench.cli.options import AsJson, Debug, RunsDir
from dpbench.core.errors import UserError

if TYPE_CHECKING:
    from dpbench.report.side_by_side import Pair, Side


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A run's folder, record or id, or the name of a method: all its complete runs in "
            "--runs-dir that differ in their seeds alone.",
        ),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    runs_dir: RunsDir = Path("runs"),
    dataset: Annotated[str | None, typer.Option(help="Data set of a method's runs.")] = None,
    eps: Annotated[float | None, typer.Option(help="epsilon of a method's runs.")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of a method's runs.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare two runs or two methods on the same test images.

    A difference is larger than its noise if its 95% interval over seeds and test images does not
    hold 0. Single runs tell of the test images alone: the same run with another seed may differ by
    more. Of many metrics one in twenty differs by chance; `dpbench report` corrects for that.
    """
    with outcome(debug):
        from dpbench.report.side_by_side import check_comparable, differing, pairs

        asked = {"dataset": dataset, "epsilon": eps, "profile": profile}
        wanted = {name: value for name, value in asked.items() if value is not None}
        a, b = (_side(name, runs_dir, wanted) for name in (first, second))
        check_comparable(a, b)
        differences, found = differing(a, b), pairs(a, b)
        if as_json:
            print_json(_json(a, b, differences, found))
        else:
            _print(a, b, differences, found)


def _side(name: str, runs_dir: Path, wanted: dict[str, Any]) -> Side:
    """The runs that a name stands for.

    Raises:
        UserError: There are none, or they differ in more than their seeds.
    """
    from dpbench.core.registry import entries
    from dpbench.records.correctness import correct_of_run
    from dpbench.records.named import file_named, read_named, records_of
    from dpbench.records.run_record import RunRecord, read_record
    from dpbench.report.side_by_side import Side

    if name not in entries("method"):
        file = file_named(name, runs_dir)
        record = read_named(file)
        if not isinstance(record, RunRecord):
            raise UserError(f"{file} holds scores of samples: compare runs")
        return Side([record], [correct_of_run(file.parent, record)])
    found = {}
    for file in records_of(name, runs_dir):
        record = read_record(file)
        asked = {"method": name, **wanted}
        if record.status == "complete" and all(
            getattr(record.spec, key) == value for key, value in asked.items()
        ):
            found[file] = record
    kinds = {replace(record.spec, seed=0).id: record.spec for record in found.values()}
    if not kinds:
        raise UserError(f"there is no complete run of {name} in {runs_dir} that is asked for")
    if len(kinds) > 1:
        seen = ", ".join(
            f"{spec.dataset} at epsilon {spec.epsilon:g}, profile {spec.profile}"
            for spec in kinds.values()
        )
        raise UserError(
            f"{len(kinds)} kinds of runs of {name} are in {runs_dir} ({seen}): choose with "
            "--dataset, --eps and --profile, or name single runs"
        )
    seeds = [record.spec.seed for record in found.values()]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise UserError(f"{runs_dir} has several runs of {name} with seed {twice[0]}: remove one")
    return Side(
        list(found.values()), [correct_of_run(file.parent, each) for file, each in found.items()]
    )


def _name(side: Side) -> str:
    spec, seeds = side.records[0].spec, len(side.records)
    which = f"{seeds} seeds" if seeds > 1 else f"seed {spec.seed}"
    return f"{spec.method}, {which}"


def _print(a: Side, b: Side, differences: dict[str, Any], found: list[Pair]) -> None:
    spec = a.records[0].spec
    out.say("")
    out.say(f"{_name(a)} and {_name(b)}, on {spec.dataset}, profile {spec.profile}", "bold")
    if differences:
        table = new_table("what they did")
        for column in ("", "A", "B"):
            table.add_column(column, overflow="fold", no_wrap=not column)
        for name, (ours, theirs) in differences.items():
            table.add_row(name, _said(ours), _said(theirs))
        out.print(table)
    table = new_table("what came out")
    table.add_column("", no_wrap=True)
    for column in ("A", "B", "A - B"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("the difference is")
    for pair in found:
        unit = f" {pair.unit}" if pair.unit else ""
        values = (f"{pair.first:.4g}{unit}", f"{pair.second:.4g}{unit}")
        verdict = _verdict(pair, repeated=min(len(a.records), len(b.records)) > 1)
        table.add_row(pair.metric, *values, f"{pair.first - pair.second:+.3g}", verdict)
    out.print(table)


def _verdict(pair: Pair, repeated: bool) -> str:
    """Whether a difference is larger than its noise, which one seed does not tell."""
    if pair.interval is None:
        return "of unknown noise"
    low, high = pair.interval
    if low <= 0 <= high:
        return f"within its noise ({low:.3g} to {high:.3g})"
    if not repeated:
        return f"more than test images explain ({low:.3g} to {high:.3g}); other seeds may differ"
    better = "A" if (low > 0) == pair.higher_is_better else "B"
    return f"larger than its noise ({low:.3g} to {high:.3g}): {better} is better"


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def _json(a: Side, b: Side, differences: dict[str, Any], found: list[Pair]) -> dict[str, Any]:
    return {
        "a": [record.spec.id for record in a.records],
        "b": [record.spec.id for record in b.records],
        "differing": {name: list(values) for name, values in differences.items()},
        "metrics": [
            {
                "metric": pair.metric,
                "unit": pair.unit,
                "higher_is_better": pair.higher_is_better,
                "a": pair.first,
                "b": pair.second,
                "difference": pair.first - pair.second,
                "interval": list(pair.interval) if pair.interval else None,
            }
            for pair in found
        ],
    }
