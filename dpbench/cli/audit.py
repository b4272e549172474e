"""``dpbench audit``: audit the mechanisms of a planned run with canaries."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from dpbench.cli.app import err, new_table, out, outcome, print_json
from dpbench.cli.options import (
    AdjacencyName,
    AsJson,
    DatasetName,
    Debug,
    Delta,
    Device,
    EngineName,
    Epsilon,
    Method,
    ProfileName,
    Seed,
    Settings,
)
from dpbench.core.errors import RunFailed

if TYPE_CHECKING:
    from dpbench.privacy.audit import Audit
    from dpbench.runs.request import PlannedRun


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
    """Audit the mechanisms of a planned run with canaries.

    The audit looks for a breach of the guarantee, takes seconds and reads no data. The exit code is
    1 if a check raises an alarm.
    """
    with outcome(debug):
        from dpbench.cli.console import progress_on
        from dpbench.core.cache import user_cache
        from dpbench.privacy.audit import audit as audit_mechanism
        from dpbench.privacy.clipping.selection import Executions
        from dpbench.runs.audited import audited_mechanism
        from dpbench.runs.request import RunRequest, plan

        request = RunRequest(
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
        planned = plan(request)
        progress = progress_on(err)
        executions = Executions(engine, cache=user_cache(progress.note), decided=progress.note)
        mechanism = audited_mechanism(planned, planned.plan.events, executions)
        found = audit_mechanism(mechanism, seed, progress)
        if as_json:
            print_json(_audit_json(planned, found))
        else:
            _print_audit(f"{method} on {dataset}, epsilon {planned.budget.epsilon:g}", found)
        if found.alarms:
            raise RunFailed(f"{found.verdict} of {method}: {', '.join(_alarm_names(found))}")


def _alarm_names(found: Audit) -> list[str]:
    return [f"{check.name} ({check.of})" for check in found.alarms]


def _audit_json(planned: PlannedRun, found: Audit) -> dict[str, Any]:
    from dpbench.privacy.events import event_to_json

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
    table = new_table(title)
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
        mark = Text("ALARM", "bold red") if check.alarm else "ok"
        table.add_row(check.name, check.of, f"{check.claimed:g}", seen, mark)
    out.print(table)
    guessed = f"{found.correct} of {found.guesses} guesses right, {found.canaries} canaries"
    for label, text in (
        ("verdict", f"{found.verdict}; each check errs with probability {found.level:.2g}"),
        (
            "epsilon",
            f"at least {found.epsilon_lower:.3g}, of at best {found.epsilon_ceiling:.3g} in this "
            f"audit ({guessed})",
        ),
        ("if normal", f"at least {found.epsilon_lower_gdp:.3g}: parametric, no claim"),
        ("limits", found.limits),
    ):
        out.say(f"{label:9}  {text}")
