"""``dpbench compare``: two runs or two methods on the same test images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.core.metrics import Measurement
from dpbench.records.run_record import RunSpec
from dpbench.records.sample_scores import Scores
from tests.support.command import Command, one_error
from tests.support.reports import FOREIGN, SPEC, finished, keep, keep_tested, score

OTHER = replace(SPEC, method="dpdm", method_args={"steps": 5, "patch": 2})


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs of this file be of methods that there are."""
    from dpbench.core import registry

    there = registry.entries("method")
    monkeypatch.setattr(registry, "entries", lambda kind: there | {"toy": there["real"]})


def keep_seeds(spec: RunSpec, share: float, seeds: int, noise: int = 0) -> None:
    for seed in range(seeds):
        keep_tested(replace(spec, seed=seed), share, noise=noise)


def compared(dpbench: Command, *arguments: object) -> dict[str, dict[str, object]]:
    found = json.loads(dpbench("compare", *arguments, "--json").out)
    return {each["metric"]: each for each in found["metrics"]}


@pytest.mark.usefixtures("methods")
def test_methods_are_compared_over_seeds_and_on_the_same_test_images(dpbench: Command) -> None:
    keep_seeds(SPEC, 0.9, 3)
    keep_seeds(OTHER, 0.6, 3, noise=1)
    cas = compared(dpbench, "toy", "dpdm")["cas"]
    low, high = cas["interval"]  # type: ignore[misc]
    assert 20 < low < cas["difference"] < high < 40
    text = dpbench("compare", "toy", "dpdm").out
    assert "larger than its noise" in text and "A is better" in text
    assert "toy, 3 seeds and dpdm, 3 seeds, on digits, profile laptop" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["steps", "3", "5"] in rows and ["patch", "none", "2"] in rows


@pytest.mark.usefixtures("methods")
def test_seeds_of_one_method_differ_by_no_more_than_their_noise(dpbench: Command) -> None:
    keep_seeds(SPEC, 0.8, 3)
    keep_seeds(OTHER, 0.8, 3, noise=1)
    low, high = compared(dpbench, "toy", "dpdm")["cas"]["interval"]  # type: ignore[misc]
    assert low < 0 < high
    assert "within its noise" in dpbench("compare", "toy", "dpdm").out


def test_single_runs_tell_of_test_images_alone(dpbench: Command) -> None:
    keep_tested(SPEC, 0.9)
    keep_tested(OTHER, 0.6)
    text = dpbench("compare", SPEC.id[:8], OTHER.id[:8]).out
    assert "more than test images explain" in text and "other seeds may differ" in text
    assert "larger than its noise" not in text and "is better" not in text
    assert compared(dpbench, SPEC.id[:8], OTHER.id[:8])["other"]["interval"] is None
    (line,) = (line for line in text.splitlines() if line.startswith("other "))
    assert line.rstrip().endswith("of unknown noise")


@pytest.mark.usefixtures("methods")
def test_other_scores_are_compared_by_their_spread_over_seeds(dpbench: Command) -> None:
    for spec, start in ((SPEC, 10.0), (OTHER, 20.0)):
        for seed in range(3):
            row = Measurement("fd", start + seed / 10, "", False, 10, "test", kind="score")
            keep(finished(replace(spec, seed=seed), None, "none", measurements=[row]))
    fd = compared(dpbench, "toy", "dpdm")["fd"]
    low, high = fd["interval"]  # type: ignore[misc]
    assert fd["difference"] == pytest.approx(-10) and -10.3 < low < -10 < high < -9.7
    assert "A is better" in dpbench("compare", "toy", "dpdm").out, "less is better"


@pytest.mark.usefixtures("methods")
def test_seeds_of_one_draw_of_public_weights_have_no_known_noise(dpbench: Command) -> None:
    keep_seeds(SPEC, 0.9, 3)
    for seed in range(3):
        shared = {"seed": 0}  # those of seed 0, whatever the run's own
        keep_tested(replace(OTHER, seed=seed), 0.6, noise=1, pretrained=shared)
    assert compared(dpbench, "toy", "dpdm")["cas"]["interval"] is None
    assert "of unknown noise" in dpbench("compare", "toy", "dpdm").out


@pytest.mark.usefixtures("methods")
@pytest.mark.parametrize("other", [{"version": "dpbench 9"}, {"extractor": "x"}, {"n": 99}])
def test_scores_that_were_measured_otherwise_are_not_compared(
    dpbench: Command, other: dict[str, object]
) -> None:
    row = Measurement("fd", 1.0, "", False, 10, "test", kind="score")
    keep(finished(SPEC, None, "none", measurements=[row]))
    changed = replace(row, **other)  # type: ignore[arg-type]
    keep(finished(OTHER, None, "none", measurements=[changed]))
    assert compared(dpbench, SPEC.id[:8], OTHER.id[:8]) == {}


@pytest.mark.usefixtures("methods")
def test_a_seed_counts_once(dpbench: Command) -> None:
    keep_seeds(SPEC, 0.9, 2)
    keep_seeds(OTHER, 0.6, 2)
    folder = Path("runs", OTHER.folder)
    shutil.copytree(folder, folder.with_name("copy"))
    assert "several runs of dpdm with seed 0" in one_error(dpbench("compare", "toy", "dpdm"), 2)


@pytest.mark.usefixtures("methods")
def test_what_cannot_be_compared_is_said_in_one_line(dpbench: Command) -> None:
    keep(finished(SPEC, 1.0), finished(replace(SPEC, epsilon=3.0), 1.0))
    elsewhere = replace(OTHER, dataset_hash="0001")
    keep(finished(elsewhere, 1.0))
    score(Scores(FOREIGN))
    said = {
        ("toy", "dpdm"): "2 kinds of runs of toy",
        ("toy", "dpdm", "--eps", "1"): "differ in images",
        ("toy", "dpsyngen", "--eps", "1"): "there is no complete run of dpsyngen",
        ("evaluations/mine.json", SPEC.id[:8]): "compare runs",
        ("nowhere", SPEC.id[:8]): "there is no run nowhere",
    }
    for arguments, expected in said.items():
        assert expected in one_error(dpbench("compare", *arguments), 2)
