"""``dpbench list``: names of methods, data sets, sources, evaluators and profiles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpbench.cli.app import new_table, out, outcome, print_json
from dpbench.cli.options import AsJson, Debug
from dpbench.core.errors import UserError

if TYPE_CHECKING:
    from dpbench.core.registry import Kind


def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="methods, datasets, sources, evaluators, profiles or metrics. Default: all but "
            "metrics."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A method, to see its hyper-parameters and presets; or an evaluator, to see its "
            "metrics alone."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Import every entry and report broken ones.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List methods, data sets, metrics and the rest."""
    with outcome(debug):
        listings = {
            "methods": lambda: _list_entries("method", check),
            "datasets": _list_datasets,
            "sources": lambda: _list_entries("source", check),
            "evaluators": lambda: _list_entries("evaluator", check),
            "profiles": _list_profiles,
        }
        if what is not None and what not in (*listings, "metrics"):
            raise UserError(f"there is no list of {what!r}: choose {', '.join(listings)}, metrics")
        if name is not None and what not in ("methods", "metrics"):
            raise UserError("a name follows methods or metrics alone: `dpbench list methods dpdm`")
        if what == "metrics" or name is not None:
            _describe(what, name, as_json)
            return
        chosen = {name: listings[name]() for name in ([what] if what else listings)}
        if as_json:
            print_json(chosen[what] if what else chosen)
        else:
            for title, items in chosen.items():
                _print_items(title, items)
                if title == "datasets":
                    out.print("Your own images: imagefolder:PATH, one sub-folder per class.")
        if any(item.get("broken") for items in chosen.values() for item in items):
            raise typer.Exit(1)


def _describe(what: str | None, name: str | None, as_json: bool) -> None:
    from dpbench.cli.describe import describe_method, describe_metrics

    if what == "methods":
        assert name is not None
        method = describe_method(name)
        if as_json:
            print_json(method)
        else:
            _print_method(method)
        return
    metrics = describe_metrics(name)
    if as_json:
        print_json(metrics)
    else:
        for evaluator in dict.fromkeys(each["evaluator"] for each in metrics):
            _print_metrics(evaluator, [each for each in metrics if each["evaluator"] == evaluator])


def _print_method(method: dict[str, Any]) -> None:
    out.say(f"{method['name']}: {method['summary']}", "bold")
    if method["paper"]:
        out.say(f"paper     {method['paper']}")
    if method["requires"]:
        out.say(f"needs     {method['requires']}")
    out.say(f"privacy   {'private' if method['private'] else 'none: it is not private'}")
    table = new_table("hyper-parameters, set by --set NAME=VALUE")
    table.add_column("name", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("what it is", overflow="fold")
    for each in method["hyper_parameters"]:
        table.add_row(each["name"], _set_as(each["default"]), each["description"])
    out.print(table)
    for preset in method["presets"]:
        where = [*preset["datasets"]]
        low, high = preset["epsilons"]
        if (low, high) != (0, math.inf):
            where.append(f"epsilon above {low:g}" + ("" if high == math.inf else f" to {high:g}"))
        out.say("")
        out.say(f"preset {preset['profile']}{': ' if where else ''}{', '.join(where)}", "bold")
        out.print(" ".join(f"{key}={_set_as(value)}" for key, value in preset["values"].items()))
        out.print(preset["source"])


def _print_metrics(evaluator: str, metrics: list[dict[str, Any]]) -> None:
    table = new_table(evaluator)
    table.add_column("metric", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("better", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for each in metrics:
        better = each["better"] if each["kind"] in ("score", "diagnostic") else ""
        table.add_row(each["name"], each["unit"], better, each["kind"], each["description"])
    out.print(table)


def _set_as(value: Any) -> str:
    """A value as ``--set`` takes it."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _list_entries(kind: Kind, check: bool) -> list[dict[str, Any]]:
    from dpbench.core.registry import entries, load
    from dpbench.core.stated import stated

    items: list[dict[str, Any]] = []
    for entry in entries(kind).values():
        said = stated(entry)
        item: dict[str, Any] = {"name": entry.name}
        if kind == "method":
            item["paper"] = said.get("paper", "")
        item["summary"] = said.get("summary", "")
        if kind == "method":
            item["requires"] = said.get("requires", "")
        item |= {"family": entry.family, "from": f"{entry.distribution} {entry.version}"}
        if check:
            try:
                item["summary"] = load(kind, entry.name).summary
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
            "validation": info.validation,
            "test": info.test,
            "description": info.description,
        }
        for info in CATALOG.values()
    ]


def _list_profiles() -> list[dict[str, Any]]:
    from dpbench.api.profiles import PROFILES

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
    rows = [_row(item) for item in items]
    table = new_table(name)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        number = isinstance(rows[0].get(column), int | float)
        table.add_column(
            column.replace("_", "\n"),
            justify="right" if number else "left",
            no_wrap=number or column == "name",
        )
    for row in rows:
        table.add_row(*(_said(row.get(column, "")) for column in columns))
    out.print(table)


def _row(item: dict[str, Any]) -> dict[str, Any]:
    """An item as a table shows it."""
    from dpbench.core.registry import OURS

    row = {key: value for key, value in item.items() if key not in ("family", "from", "requires")}
    if "paper" in row:
        row["paper"] = row["paper"].partition(",")[0]
    if item.get("requires"):
        row["summary"] += f"; needs {item['requires']}"
    if "from" in item and not item["from"].startswith(f"{OURS} "):
        row["summary"] += f" [{item['from']}]"
    return row


def _said(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
