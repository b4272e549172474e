"""``dpbench pretrain``: train a method on public images, ahead of the runs that need it."""

from __future__ import annotations

from typing import Annotated

import typer

from dpbench.cli.app import err, outcome
from dpbench.cli.options import (
    DataRoot,
    DatasetName,
    Debug,
    Device,
    Method,
    ProfileName,
    Public,
    Seed,
    Settings,
)


def pretrain(
    method: Method,
    dataset: DatasetName,
    public: Public = None,
    eps: Annotated[
        float,
        typer.Option("--eps", help="epsilon of the runs to come, since presets may depend on it."),
    ] = 1.0,
    profile: ProfileName = "laptop",
    seed: Seed = 0,
    settings: Settings = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Train a method on public images, ahead of the runs that need it.

    `dpbench run` does the same if it has not been done. Runs share the weights, which are
    cached by what they depend on: the public images, their shape, the network, the hyper-
    parameters and the seed, but nothing private. The same command continues an interrupted
    training.
    """
    with outcome(debug, "Interrupted: the same command continues where this one stopped."):
        from dpbench.cli.console import progress_on
        from dpbench.runs.execute import pretrain as pretrain_run
        from dpbench.runs.request import RunRequest, plan

        request = RunRequest(
            method=method,
            dataset=dataset,
            epsilon=eps,
            seed=seed,
            profile=profile,
            settings=tuple(settings or ()),
            device=device,
            public=public,
        )
        pretrain_run(plan(request), progress_on(err), data_root)
