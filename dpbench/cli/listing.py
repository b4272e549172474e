"""``dpbench list``: names of methods, data sets, sources, evaluators and profiles."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dpbench.cli.app import new_table, out, outcome, print_json
from dpbench.cli.options import AsJson, Debug
from dpbench.core.errors import UserError


def list_(
    what: Annotated[
        str | None,
        typer.Argument(help="methods, datasets, sources, evaluators or profiles. Default: all."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Import every entry and report broken ones.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List methods, data sets, sources, evaluators and profiles."""
    with outcome(debug):
        listings = {
            "methods": lambda: _list_entries("method", check),
            "datasets": _list_datasets,
            "sources": lambda: _list_entries("source", check),
            "evaluators": lambda: _list_entries("evaluator", check),
            "profiles": _list_profiles,
        }
        if what is not None and what not in listings:
            raise UserError(f"there is no list of {what!r}: choose {', '.join(listings)}")
        chosen = {name: listings[name]() for name in ([what] if what else listings)}
        if as_json:
            print_json(chosen[what] if what else chosen)
        else:
            for name, items in chosen.items():
                _print_items(name, items)
                if name == "datasets":
                    out.print("Your own images: imagefolder:PATH, one sub-folder per class.")
        if any(item.get("broken") for items in chosen.values() for item in items):
            raise typer.Exit(1)


def _list_entries(kind: str, check: bool) -> list[dict[str, Any]]:
    from dpbench.core.registry import entries, load

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
    table = new_table(name)
    columns = list(dict.fromkeys(key for item in items for key in item))
    for column in columns:
        number = isinstance(items[0].get(column), int | float)
        table.add_column(
            column.replace("_", "\n"),
            justify="right" if number else "left",
            no_wrap=number or column == "name",
        )
    for item in items:
        table.add_row(*(_said(item.get(column, "")) for column in columns))
    out.print(table)


def _said(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
