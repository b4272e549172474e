"""Records made by hand, and what a report makes of them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from dpbench.core.files import sha256
from dpbench.core.metrics import Measurement
from dpbench.records.run_record import RunRecord, RunSpec
from dpbench.records.sample_scores import UNKNOWN, Scores, ScoresSpec
from tests.support.certified import ARTIFACTS, certificate

SPEC = RunSpec(
    method="toy",
    method_version="toy 1.0",
    method_args={"steps": 3},
    dataset="digits",
    dataset_hash="00ff",
    epsilon=1.0,
    delta=1e-5,
    adjacency="add_remove",
    seed=0,
    profile="laptop",
    compute={"private_evaluations": 10},
    samples=10,
)


def finished(spec: RunSpec, value: float | None, reason: str = "", **parts: object) -> RunRecord:
    record = RunRecord(spec, status="complete")
    record.resolved = {"by_hand": []}
    record.artifacts = dict(ARTIFACTS)
    record.cost = {"private_evaluations": 9, "public_evaluations": 0}
    record.timings = {"fit": 1.5}
    record.measurements = [Measurement("cas", value, "%", True, 10, "test", reason=reason)]
    for name, part in parts.items():
        setattr(record, name, part)
    if "privacy" not in parts:
        record.privacy = certificate(spec, by_hand=record.resolved["by_hand"])
    return record


def keep(*records: RunRecord) -> None:
    for record in records:
        file = "runs" / record.spec.folder / "record.json"
        file.parent.mkdir(parents=True)
        file.write_text(record.dumps())


def table(dataset: str = "digits") -> list[dict[str, str]]:
    with Path("leaderboards", f"{dataset}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


FOREIGN = ScoresSpec(
    name="mine",
    origin=UNKNOWN,
    samples_hash="00ff",
    samples=10,
    dataset="digits",
    dataset_hash="00ff",
    profile="laptop",
    seed=0,
    package="dpbench-images 0.1",
)


CAS_OF_MINE = Measurement("cas", 99.0, "%", True, 10, "test")


def score(scores: Scores, file: str = "evaluations/mine.json") -> str:
    """Keep scores; returns the text."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(scores.dumps())
    return scores.dumps()


N = 1000


def keep_tested(
    spec: RunSpec,
    share: float,
    kept: bool = True,
    noise: int = 0,
    pretrained: dict[str, object] | None = None,
) -> None:
    """Keep a run whose classifier is right of about that share of the test images."""
    rng = np.random.default_rng([spec.seed, noise])
    labels = np.arange(N) % 10
    predicted = np.where(rng.random(N) < share + rng.normal(0, 0.01), labels, (labels + 1) % 10)
    value = 100 * int((predicted == labels).sum()) / N
    record = finished(spec, value)
    if pretrained is not None:
        record.resolved["pretrained"] = pretrained
    record.measurements = [
        replace(record.measurements[0], n_real=N),
        Measurement("other", 3.0 + spec.seed, "", False, 10, "test"),
    ]
    file = Path("runs", spec.folder, "evaluation-some.npz")
    file.parent.mkdir(parents=True)
    if kept:
        np.savez(file, labels=labels, cas=predicted, other=predicted)
        record.artifacts = {**ARTIFACTS, file.name: sha256(file)}
    (file.parent / "record.json").write_text(record.dumps())


def cas_rows() -> list[dict[str, str]]:
    return [row for row in table() if row["metric"] == "cas"]


FAMILIES = ("logreg", "cnn")


CONFIGURATIONS = [f"{family}_lr{rate}_wd0" for family in FAMILIES for rate in (0.1, 0.2)]


def with_curves(spec: RunSpec, spearman: float | None = 0.5) -> RunRecord:
    reason = "" if spearman is not None else "4 configurations"
    record = finished(spec, 50.0)
    record.measurements += [
        Measurement("model_selection_a_spearman", spearman, "", True, 10, reason=reason),
        Measurement("model_selection_b_spearman", 0.25, "", True, 10),
        *(
            Measurement(f"model_selection_{kind}_{name}", base + place, "%", True, 10)
            for base, kind in enumerate(("synthetic", "transfer", "real", "reseeded"))
            for place, name in enumerate(CONFIGURATIONS)
        ),
        *(Measurement(f"scaling_cas_n{n}", n / 10, "%", True, n) for n in (100, 200)),
        *(Measurement(f"scaling_cas_real_n{n}", n / 5, "%", True, 0) for n in (100, 200)),
        Measurement("scaling_cas_n400", None, "%", True, 10, reason="10 images are there"),
    ]
    return record
