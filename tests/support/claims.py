"""Claims and records made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dpbench.claims.arms import Arm
from dpbench.claims.rules import Claim, Paired, Rule
from dpbench.claims.values import Metric
from dpbench.claims.verdicts import ClaimVerdict, judge
from dpbench.core.metrics import Measurement
from dpbench.records.run_record import RunRecord, RunSpec
from tests.support.certified import ARTIFACTS, certificate

NEW, OLD = Arm("new", 1.0), Arm("old", 1.0)
FD, CAS = Metric("fd", "fidelity"), Metric("cas", "cas")
NOISE = (0.1, -0.1, 0.05, -0.05, 0.0)


BETTER = Paired(NEW, OLD, FD)


OFF = (0.0, 0.1, 0.0, -0.1, 0.0)


def run(arm: Arm, seed: int, *measured: Measurement, **spec: object) -> RunRecord:
    asked = RunSpec(
        method=arm.method,
        method_version="toy 1.0",
        method_args={"steps": 3, **arm.values},
        dataset=arm.dataset,
        dataset_hash="00ff",
        epsilon=arm.epsilon,
        delta=arm.delta,
        adjacency=arm.adjacency,
        seed=seed,
        profile=arm.profile,
        compute={"private_evaluations": 10},
        samples=10,
    )
    record = RunRecord(replace(asked, **spec), status="complete")  # type: ignore[arg-type]
    record.resolved = {"by_hand": list(arm.values)}
    record.privacy = certificate(record.spec, by_hand=list(arm.values))
    record.artifacts = dict(ARTIFACTS)
    record.cost = {"private_evaluations": 9, "public_evaluations": 0}
    record.timings = {"fit": 1.5}
    record.measurements = list(measured)
    return record


def fd(value: float | None, name: str = "fd", **other: object) -> Measurement:
    """Lower is better."""
    reason = "" if value is not None else "no weights"
    found = Measurement(name, value, "", False, 10, "test", "cnn", reason)
    return replace(found, **other)  # type: ignore[arg-type]


def cas(value: float, name: str = "cas") -> Measurement:
    return Measurement(name, value, "%", True, 10, "test", "cnn")


def distances(arm: Arm, mean: float, noise: Sequence[float] = NOISE) -> list[RunRecord]:
    """Runs of seeds 0, 1, ... whose distances lie around a mean."""
    return [run(arm, seed, fd(mean + each)) for seed, each in enumerate(noise)]


def scores(arm: Arm, mean: float, noise: Sequence[float] = NOISE) -> list[RunRecord]:
    return [run(arm, seed, cas(mean + each)) for seed, each in enumerate(noise)]


def claim(rule: Rule, name: str = "c") -> Claim:
    return Claim(name, "statement", "source", "published", rule, "here")


def verdict(rule: Rule, records: Sequence[RunRecord]) -> ClaimVerdict:
    (found,) = judge([claim(rule)], records)
    return found


def replace_seed(record: RunRecord, seed: int) -> RunRecord:
    return replace(record, spec=replace(record.spec, seed=seed))
