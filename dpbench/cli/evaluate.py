"""``dpbench evaluate``: evaluate samples, including ones made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpbench.cli.app import err, outcome
from dpbench.cli.options import AsJson, DataRoot, Debug, Device, Evaluators, Everything, names_of
from dpbench.cli.results import print_scores
from dpbench.core.errors import RunFailed


def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help="A run's folder; an .npz file with images, uint8 (N, C, H, W), (N, H, W, C) or "
            "(N, H, W), and labels (N,); or a folder with one sub-folder of PNG or JPEG files "
            "per class, named by the class's name or number.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set that the samples imitate: `dpbench list datasets`, or imagefolder:PATH. "
            "Default: the run's own."
        ),
    ] = None,
    evaluators: Evaluators = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Size of the evaluation. Default: the run's own, or laptop."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Public seed of the evaluators. Default: the run's own, or 0."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the samples. Default: the name of SAMPLES.")
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="File to write the scores to. Default: evaluations/NAME.json."),
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    everything: Everything = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Evaluate samples, including ones made elsewhere.

    They are measured as a run measures its own. The scores claim no privacy, whatever made
    them: `dpbench report` lists samples of unknown origin without an epsilon, after all runs
    that have one. Evaluating the samples of a run leaves its record unchanged. The same command
    continues an interrupted evaluation.
    """
    with outcome(debug, "Interrupted: the same command continues where this one stopped."):
        from dpbench.cli.console import progress_on
        from dpbench.runs import sample_evaluation
        from dpbench.runs.evaluation import failures, named

        request = sample_evaluation.SampleRequest(
            source=source,
            dataset=dataset,
            evaluators=names_of(evaluators),
            profile=profile,
            seed=seed,
            name=name,
            out=out_file,
            device=device,
        )
        scores, file = sample_evaluation.score(request, progress_on(err), data_root, debug)
        if as_json:
            typer.echo(scores.dumps(), nl=False)
        else:
            print_scores(scores, file, everything)
        if failed := failures(named(request.evaluators), scores):
            raise RunFailed(f"not all was measured ({failed}): the same command tries again")
