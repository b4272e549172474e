"""What makes two runs the same run: the specification that a run's id is the hash of."""

from __future__ import annotations

from dataclasses import asdict

from dpbench.api.sources import PublicSource
from dpbench.records.run_record import RunSpec
from dpbench.runs.request import PUBLIC_FIELD, PlannedRun


def spec_of(planned: PlannedRun, dataset_hash: str, public: PublicSource | None) -> RunSpec:
    """What the record of a planned run will say that was asked for; its id names the folder.

    Args:
        planned: From ``plan``.
        dataset_hash: SHA-256 of the data set's arrays, from ``load``.
        public: From ``dpbench.runs.public_images.open_public``.
    """
    arguments = dict(planned.resolved.arguments)
    if public is not None and PUBLIC_FIELD in arguments:  # of a folder, not its whole path
        arguments[PUBLIC_FIELD] = public.name
    return RunSpec(
        method=planned.request.method,
        method_version=planned.method_version,
        method_args=arguments,
        dataset=planned.dataset.name,
        dataset_hash=dataset_hash,
        epsilon=planned.budget.epsilon,
        delta=planned.budget.delta,
        adjacency=planned.budget.adjacency,
        seed=planned.request.seed,
        profile=planned.profile.name,
        compute=asdict(planned.profile.compute),
        samples=planned.profile.samples,
        public=f"{public.name}@{public.identity[:12]}" if public is not None else None,
        precision=planned.resolved.arguments.get("precision", "float32"),
        reproducible=planned.request.reproducible,
    )
