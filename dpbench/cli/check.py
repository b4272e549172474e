"""``dpbench check``: neighbour replay of one method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dpbench.cli.app import err, new_table, out, outcome, print_json
from dpbench.cli.options import (
    AdjacencyName,
    AsJson,
    DataRoot,
    DatasetName,
    Debug,
    Delta,
    EngineName,
    Epsilon,
    ProfileName,
    Public,
    Seed,
    Settings,
)
from dpbench.core.errors import RunFailed

if TYPE_CHECKING:
    from dpbench.privacy.replay.handle import Comparison


def check(
    method: Annotated[str, typer.Argument(help="Generator or baseline: `dpbench list methods`.")],
    dataset: DatasetName = "digits",
    eps: Epsilon = None,
    delta: Delta = 1e-5,
    adjacency: AdjacencyName = "add_remove",
    seed: Seed = 0,
    profile: ProfileName = "smoke",
    settings: Settings = None,
    public: Public = None,
    engine: EngineName = "auto",
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check that a method learns through its mechanisms alone.

    This is neighbour replay: the method is fitted without noise, on the CPU, on a data set, on
    neighbours of it and on sets that share no image with it, which are given the releases of
    the first fit. Each release may differ by at most its sensitivity, and nothing else may
    differ. Of presets beyond `smoke` each loop is cut to what `smoke` allows.
    """
    with outcome(debug):
        from dpbench.cli.console import progress_on
        from dpbench.privacy.replay import NOT_SHOWN
        from dpbench.runs.check import check as compare
        from dpbench.runs.check import verdict
        from dpbench.runs.request import RunRequest

        request = RunRequest(
            method=method,
            dataset=dataset,
            epsilon=eps,
            delta=delta,
            adjacency=adjacency,  # type: ignore[arg-type]  # checked by PrivacyBudget
            seed=seed,
            profile=profile,
            settings=tuple(settings or ()),
            public=public,
            device="cpu",
            engine=engine,
        )
        comparisons = compare(request, data_root, progress_on(err))
        failure = verdict(method, comparisons)
        if as_json:
            rows = [{**asdict(each), "ok": each.ok} for each in comparisons]
            print_json(
                {
                    "method": method,
                    "dataset": dataset,
                    "profile": profile,
                    "ok": not failure,
                    "comparisons": rows,
                    "not_shown": list(NOT_SHOWN),
                }
            )
        else:
            _print_comparisons(f"{method} on {dataset}", comparisons)
            out.print(
                "This is a check on these neighbours and draws, not a proof. It does not show:"
            )
            for each in NOT_SHOWN:
                out.say(f"- {each}")
        if failure:
            raise RunFailed(failure)


def _print_comparisons(title: str, comparisons: Sequence[Comparison]) -> None:
    """Print the release that differs most per neighbour and purpose, and other differences."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for each in comparisons:
        purpose = each.purpose if each.release is not None or not each.ok else "all else"
        groups.setdefault((each.neighbour, purpose), []).append(each)
    table = new_table(title)
    for column in ("neighbour", "purpose", "release", "difference", "sensitivity", "ok"):
        right = column in ("release", "difference", "sensitivity")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for (neighbour, purpose), group in groups.items():
        worst = max(group, key=lambda each: each.difference)
        ok = "yes" if all(each.ok for each in group) else Text("NO", "bold red")
        if worst.release is None:
            values = ("", "none" if worst.ok else "some", "none")
        else:
            first = min(each.release for each in group if each.release is not None)
            release = f"{worst.release - first + 1} of {len(group)}"
            values = (release, f"{worst.difference:.6g}", f"{worst.sensitivity:g}")
        table.add_row(neighbour, purpose, *values, ok)
    out.print(table)
