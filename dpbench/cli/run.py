"""``dpbench run``: execute one run, or print its plan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from dpbench.cli.app import err, outcome, print_json
from dpbench.cli.options import (
    AdjacencyName,
    AsJson,
    DataRoot,
    DatasetName,
    Debug,
    Delta,
    Device,
    DryRun,
    EngineName,
    Epsilon,
    Evaluators,
    Everything,
    Method,
    Overwrite,
    Processes,
    ProfileName,
    Public,
    Published,
    Remeasure,
    Reproducible,
    RunFolder,
    RunsDir,
    Seed,
    Settings,
    names_of,
)
from dpbench.cli.results import print_run
from dpbench.core.errors import RunFailed

if TYPE_CHECKING:
    from dpbench.runs.estimates import TimeEstimate
    from dpbench.runs.request import PlannedRun


def run(
    method: Method,
    dataset: DatasetName,
    eps: Epsilon = None,
    delta: Delta = 1e-5,
    adjacency: AdjacencyName = "add_remove",
    seed: Seed = 0,
    profile: ProfileName = "laptop",
    settings: Settings = None,
    public: Public = None,
    evaluators: Evaluators = None,
    runs_dir: RunsDir = Path("runs"),
    out_folder: RunFolder = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    engine: EngineName = "auto",
    processes: Processes = None,
    published: Published = False,
    reproducible: Reproducible = False,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    remeasure: Remeasure = None,
    everything: Everything = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a method privately, draw samples and evaluate them.

    The same command continues an interrupted run.
    """
    with outcome(debug, "Interrupted: the same command continues where this one stopped."):
        from dpbench.parallel.launcher import end_with_launcher, is_rank, launch

        if processes not in (None, 1) and not is_rank():
            sys.exit(launch(processes, sys.argv[1:]))  # they have said how they ended
        end_with_launcher()
        from dpbench.cli.console import progress_on
        from dpbench.parallel.ranks import joined
        from dpbench.runs.estimates import TimeEstimates
        from dpbench.runs.evaluation import failures
        from dpbench.runs.execute import assist, execute
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
            published=published,
            reproducible=reproducible,
            device=device,
            engine=engine,
            public=public,
            evaluators=names_of(evaluators),
        )
        with joined(processes) as ranks:
            planned = plan(request, ranks)
            if not ranks.first:
                if not dry_run:
                    assist(planned, data_root)
                return
            estimate = TimeEstimates(runs_dir).of(planned)
            _print_plan(planned, estimate)
            if dry_run:
                if as_json:
                    print_json(_plan_json(planned, estimate))
                return
            record, folder = execute(
                planned,
                progress_on(err, estimate.parts),
                runs_dir,
                out_folder,
                data_root,
                overwrite,
                names_of(remeasure),
                debug,
            )
        if as_json:
            typer.echo(record.dumps(), nl=False)
        else:
            print_run(record, folder, runs_dir, everything)
        if failed := failures(planned.evaluators, record):
            raise RunFailed(f"not all was measured ({failed}): the same command tries again")


def _plan_json(planned: PlannedRun, estimate: TimeEstimate) -> dict[str, Any]:
    from dpbench.privacy.events import event_to_json
    from dpbench.runs.estimates import SAMPLING, TRAINING

    return {
        "method": planned.request.method,
        "dataset": planned.dataset.name,
        "epsilon": planned.budget.epsilon,
        "delta": planned.budget.delta,
        "adjacency": planned.budget.adjacency,
        "warnings": list(planned.warnings),
        "labels": planned.dataset.labels,
        "profile": planned.profile.name,
        "preset": planned.resolved.source,
        "method_args": dict(planned.resolved.arguments),
        "public": planned.plan.public,
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
        "estimated_train_seconds": estimate.parts[TRAINING],
        "estimated_sample_seconds": estimate.parts[SAMPLING],
        "estimated_evaluation_seconds": estimate.evaluation,
    }


def _print_plan(planned: PlannedRun, estimate: TimeEstimate) -> None:
    from dpbench.api.sources import NO_PUBLIC
    from dpbench.core.progress import duration
    from dpbench.privacy.events import DPSGDEvent
    from dpbench.runs.estimates import TRAINING

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
        *(("warning", text) for text in planned.warnings),
        ("images", f"{planned.dataset.description}; {planned.dataset.train:,} to train on"),
        ("labels", planned.dataset.labels_in_words),
    ]
    if planned.plan.public != NO_PUBLIC:
        lines.append(("public images", planned.plan.public))
    if planned.plan.parameters:
        lines.append(("network", f"{planned.plan.parameters:,} parameters on {planned.device}"))
    if planned.ranks.size > 1:
        lines.append(("processes", f"{planned.ranks.size} share private training"))
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
        lines.append(("compute", ", ".join(used) + " evaluations"))
        training = estimate.parts[TRAINING]
        if training > 1.5 * compute.train_seconds:
            text = f"training takes longer than the profile's {duration(compute.train_seconds)}"
            lines.append(("note", text))
    lines.append(("time", _time_in_words(planned, estimate)))
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(Text(name, "bold"), text)
    err.print(table)


def _time_in_words(planned: PlannedRun, estimate: TimeEstimate) -> str:
    from dpbench.core.progress import duration
    from dpbench.runs.estimates import SAMPLING, TRAINING

    parts = [f"{duration(estimate.parts[TRAINING])} of training"]
    if estimate.parts[SAMPLING] >= 1:
        parts.append(f"{duration(estimate.parts[SAMPLING])} of sampling")
    unknown = [name for name in planned.evaluators if name not in estimate.parts]
    if len(unknown) < len(planned.evaluators):
        parts.append(f"{duration(estimate.evaluation)} of evaluation")
    text = f"about {duration(estimate.seconds)} on this machine: {', '.join(parts)}"
    return text + (f"; without {', '.join(unknown)}" if unknown else "")
