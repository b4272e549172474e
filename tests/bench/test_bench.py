from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dpbench.bench import accounting, sample, startup, step, timing, workloads
from dpbench.bench.accounting import EPSILONS, SAMPLE_RATE, STEPS
from dpbench.core.progress import Silent
from dpbench.parallel.cores import core_count, share_cores
from dpbench.privacy import calibration
from dpbench.privacy.budget import PrivacyBudget
from dpbench.privacy.calibration import calibrate
from dpbench.privacy.clipping import ENGINES, engine, selection
from tests.support.command import Command

SMALL = ("bench", "step", "--network", "cnn", "--precision", "float32", "--repeats", 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SHORTEST_SECONDS", 0.0)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure memory here: a process for every row would take most of the time."""
    monkeypatch.setattr(step, "_in_new_process", lambda function, *arguments: function(*arguments))


def rows(dpbench: Command, *arguments: object) -> list[dict[str, Any]]:
    ended = dpbench(*arguments, "--json")
    assert ended.code == 0, ended.err
    result: list[dict[str, Any]] = json.loads(ended.out, parse_constant=pytest.fail)
    return result


# Timing.


class Clock:
    """Stands still but for what is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[str] = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def takes(self, name: str, seconds: Sequence[float]) -> Callable[[], str]:
        left = iter(seconds)

        def run() -> str:
            self.order.append(name)
            self.now += next(left)
            return name

        return run


def test_every_repeat_times_every_variant_after_a_run_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    variants = {"a": clock.takes("a", [99, 1, 2, 3]), "b": clock.takes("b", [99, 4, 5, 6])}
    timed = timing.side_by_side(variants, 3, Silent())
    assert timed["a"].seconds == [1, 2, 3] and timed["b"].seconds == [4, 5, 6]
    assert "".join(clock.order) == "ab" + "ba" + "ab" + "ba"
    assert timed["a"].rate(6) == timing.Spread(median=3, low=2, high=6)


def test_a_neighbour_that_slows_a_whole_repeat_does_not_change_the_ratio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    seconds = [1, 1, 20, 30, 1, 1]
    variants = {
        "yardstick": clock.takes("yardstick", seconds),
        "half": clock.takes("half", [2 * each for each in seconds]),
    }
    timed = timing.side_by_side(variants, 5, Silent())
    assert timed["half"].ratio(timed["yardstick"]) == 0.5


def test_what_is_too_short_to_time_is_done_until_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "SHORTEST_SECONDS", 1.0)
    clock = Clock(monkeypatch)
    timed = timing.side_by_side({"a": clock.takes("a", [0.25] * 8)}, 1, Silent())
    assert timed["a"].seconds == [0.25] and len(clock.order) == 8


def test_a_variant_that_fails_is_not_run_again_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    tried = []

    def fails() -> None:
        tried.append(1)
        raise ValueError("no\n such layer")

    timed = timing.side_by_side({"a": clock.takes("a", [1, 1, 1]), "b": fails}, 2, Silent())
    assert timed["b"].reason == "ValueError: no such layer" and len(tried) == 1
    assert timed["b"].rate(1) is None and timed["b"].ratio(timed["a"]) is None
    assert timed["a"].seconds == [1, 1] and not timed["a"].reason


# Steps.


def test_a_step_gives_a_row_for_every_engine_and_combination(
    dpbench: Command, in_this_process: None
) -> None:
    options = ("--multiplicity", 1, "--multiplicity", 4, "--copies", 8)
    found = rows(dpbench, *SMALL, *options)
    assert [(row["multiplicity"], row["engine"]) for row in found] == [
        *itertools.product((1, 4), ("nonprivate", *ENGINES))
    ]
    for row in found:
        assert set(row) == set(step.StepTiming.__dataclass_fields__)
        assert (row["network"], row["precision"], row["copies"]) == ("cnn", "float32", 8)
        assert row["parameters"] == 26010  # Papernot et al. 2021, table 1
        assert 0 < row["images_per_s_low"] <= row["images_per_s"] <= row["images_per_s_high"]
        assert row["ratio"] > 0 and row["peak_mb"] >= 0 and row["reason"] == ""
        assert row["ratio"] == 1 or row["engine"] != "nonprivate"


def test_the_choice_can_be_narrowed_down_and_keeps_the_yardstick(
    dpbench: Command, in_this_process: None
) -> None:
    options = ("--multiplicity", 3, "--engine", "loop", "--copies", 8)
    ended = dpbench(*SMALL, *options, "--precision", "bfloat16")
    assert ended.code == 0
    assert "4 rows, about" in ended.err
    table = [line.split() for line in ended.out.splitlines() if line.startswith("cnn")]
    assert [line[:5] for line in table] == [
        ["cnn", precision, name, "3", "6"]  # two whole images
        for precision in ("float32", "bfloat16")
        for name in ("nonprivate", "loop")
    ]


def test_an_engine_that_cannot_do_a_network_is_a_row_with_the_reason(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_new_process(function: object, case: object, name: str, device: str) -> float:
        if name == "folded":
            raise MemoryError("not enough")
        return 1.0

    def cannot(*arguments: object) -> None:
        raise ValueError("unknown layer")

    monkeypatch.setattr(step, "_in_new_process", in_new_process)
    monkeypatch.setattr(step, "engine", lambda name: cannot if name == "vmap" else engine(name))
    options = (*SMALL, "--multiplicity", 1, "--copies", 2)
    found = {row["engine"]: row for row in rows(dpbench, *options)}
    assert found["folded"]["reason"] == "out of memory (not enough): free some, or allow more"
    assert found["vmap"]["reason"] == "ValueError: unknown layer"
    for name in ("folded", "vmap"):
        assert found[name]["images_per_s"] is None and found[name]["ratio"] is None
    for name in ("nonprivate", "loop", "opacus"):
        assert found[name]["images_per_s"] > 0 and not found[name]["reason"]
    ended = dpbench(*options)
    assert "no cnn, float32, vmap: ValueError: unknown layer" in ended.err
    assert "vmap" not in ended.out


def gradients(case: step.Case, sums: Callable[..., dict[str, Tensor]]) -> Tensor:
    (load,) = workloads.chosen([case.network])
    model, objective = load.build(case.multiplicity, case.precision)
    images = workloads.random_images(load, case.images)
    copies = objective.draw(images.pixels, images.labels, torch.Generator().manual_seed(0))
    return torch.cat([part.flatten() for part in sums(model, objective, copies, 1e9).values()])


@pytest.mark.parametrize("precision", workloads.PRECISIONS)
@pytest.mark.parametrize("network", ["cnn", "unet-laptop"])
def test_the_yardstick_does_the_whole_work_of_a_step_but_for_the_clipping(
    network: str, precision: str
) -> None:
    case = step.Case(network, 2, precision, 8)
    plain, private = (gradients(case, each) for each in (step.nonprivate, engine("loop")))
    tolerance = 1e-5 if precision == "float32" else 0.05
    assert (plain - private).norm() < tolerance * private.norm()
    assert plain.dtype == torch.float32


def test_bfloat16_computes_in_bfloat16() -> None:
    case = step.Case("cnn", 1, "float32", 8)
    half = step.Case("cnn", 1, "bfloat16", 8)
    exact, rounded = (gradients(each, step.nonprivate) for each in (case, half))
    assert 1e-4 < (exact - rounded).norm() / exact.norm() < 0.1


def peak(case: step.Case, copies_at_once: int) -> float:
    """Peak memory of a step in MB, measured in a process of its own."""
    selection.CPU_COPIES = copies_at_once
    share_cores(core_count())  # one core: whether two physical batches overlap is chance
    return step._peak_mb(case, "vmap", "cpu")


def test_the_memory_of_a_step_does_not_grow_with_the_logical_batch() -> None:
    usual = selection.CPU_COPIES
    small, large, broken = (
        step._in_new_process(peak, step.Case("cnn", 1, "float32", copies), at_once)
        for copies, at_once in ((256, usual), (1024, usual), (1024, 10**6))
    )
    assert large < 1.3 * small
    assert broken > 2 * small, "it would be seen to grow"


def test_every_network_of_the_methods_is_there_and_builds() -> None:
    known = workloads.workloads()
    assert {"cnn", "unet-laptop", "unet-paper"} <= known.keys()
    assert {each.name for each in workloads.chosen([])} == {"cnn", "ddpm-laptop", "unet-laptop"}
    counts = {}
    for name, load in known.items():
        model, objective = load.build(3, "float32")
        assert objective.multiplicity == 3
        counts[name] = sum(p.numel() for p in model.parameters())
    assert counts["unet-laptop"] == pytest.approx(0.55e6, rel=0.01)
    assert counts["unet-paper"] == pytest.approx(1.75e6, rel=0.02)


# Sampling.


def test_sampling_is_compared_with_the_evaluations_that_it_makes(dpbench: Command) -> None:
    options = ("--network", "unet-laptop", "--images", 1, "--repeats", 1)
    found = rows(dpbench, "bench", "sample", *options)
    cases = itertools.product(("float32", "bfloat16"), (("ddim", 10), ("heun", 19)))
    assert [(row["precision"], (row["solver"], row["evaluations"])) for row in found] == [*cases]
    for row in found:
        assert set(row) == set(sample.SamplingTiming.__dataclass_fields__)
        assert row["images_per_s"] > 0 and row["forward_only_images_per_s"] > 0
        ratio = row["images_per_s"] / row["forward_only_images_per_s"]
        assert row["ratio"] == pytest.approx(ratio)


def test_forward_only_makes_the_calls_of_the_sampler_again() -> None:
    load = workloads.workloads()["unet-laptop"]
    model, _ = load.build(1, "float32")
    labels = torch.arange(251) % load.classes  # two batches, of 250 and 1

    def draw() -> None:
        load.samplers["ddim"](model).sample(labels, torch.Generator().manual_seed(0))

    calls = sample._calls(model, draw)
    assert sorted(len(inputs[0]) for inputs in calls) == [1] * 10 + [250] * 10
    assert not model._forward_pre_hooks


# Accounting.


def test_calibrations_are_compared_by_one_accountant(dpbench: Command) -> None:
    options = ("--eps", 1, "--steps", 732, "--repeats", 1)
    ours, prv, rdp = rows(dpbench, "bench", "accounting", *options)
    assert [row["accountant"].split()[-1] for row in (ours, prv, rdp)] == ["PLD", "PRV", "RDP"]
    for row in (ours, prv, rdp):
        assert (row["epsilon"], row["steps"], row["delta"]) == (1, 732, 1e-5)
        assert row["sample_rate"] == SAMPLE_RATE
        assert 0 < row["seconds_low"] == row["seconds"] == row["seconds_high"]
    assert ours["noise_multiplier"] == calibrate(PrivacyBudget(1.0), SAMPLE_RATE, 732)
    # the less noise within the budget, the better
    assert ours["noise_multiplier"] < prv["noise_multiplier"] < rdp["noise_multiplier"]
    epsilons = [row["accounted_epsilon"] for row in (rdp, prv, ours)]
    assert epsilons == sorted(epsilons) and 0.999 < epsilons[-1] <= 1


def test_every_repeat_calibrates_anew(dpbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrations = []
    first_guess = calibration._first_guess

    def counted(*arguments: Any) -> float:
        calibrations.append(arguments)
        return first_guess(*arguments)

    monkeypatch.setattr(calibration, "_first_guess", counted)
    monkeypatch.setattr(accounting, "OPACUS_ACCOUNTANTS", ())
    options = ("--eps", 1, "--steps", 10, "--repeats", 2)
    assert dpbench("bench", "accounting", *options).code == 0
    assert len(calibrations) == 3  # one to warm up


def test_a_calibration_that_fails_is_a_row_with_the_reason(dpbench: Command) -> None:
    # Renyi DP cannot state an epsilon this small, whatever the noise
    options = ("--eps", 0.05, "--steps", 10, "--repeats", 1)
    ours, _, rdp = rows(dpbench, "bench", "accounting", *options)
    assert ours["noise_multiplier"] > 0 and not ours["reason"]
    assert "privacy budget is too low" in rdp["reason"]
    assert rdp["seconds"] is None and rdp["noise_multiplier"] is None


def test_the_default_calibrations_are_those_of_the_papers() -> None:
    assert (EPSILONS, STEPS) == ((0.2, 1.0, 10.0), (732, 2197, 14648))


# Start-up.


def test_starting_is_timed_as_whole_processes(dpbench: Command) -> None:
    bare, *others = rows(dpbench, "bench", "startup", "--repeats", 1)
    assert bare["command"] == "python -c pass" and bare["ratio"] == 1
    assert {"dpbench --help", "dpbench list"} < {row["command"] for row in others}
    for row in others:
        assert row["seconds"] > bare["seconds"] > 0 and row["ratio"] > 1


def test_a_command_that_does_not_start_fails_the_benchmark(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*startup._DPBENCH, "nonsense"]
    monkeypatch.setitem(startup._COMMANDS, "dpbench list", broken)
    ended = dpbench("bench", "startup", "--repeats", 1)
    assert ended.code == 1
    assert "dpbench list: CalledProcessError" in ended.err and not ended.out
