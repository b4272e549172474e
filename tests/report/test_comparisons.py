from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Command
from tests.support.reports import (
    SPEC,
    cas_rows,
    keep_tested,
)


def compared() -> dict[tuple[str, str], dict[str, str]]:
    with Path("leaderboards/digits.comparisons.csv").open(newline="") as file:
        return {(row["method_a"], row["method_b"]): row for row in csv.DictReader(file)}


def test_methods_that_differ_are_told_from_those_that_do_not(dpbench: Command) -> None:
    for seed in range(3):
        for noise, method in enumerate(("good", "alike", "bad")):
            share = 0.3 if method == "bad" else 0.8
            keep_tested(replace(SPEC, method=method, seed=seed), share, noise=noise)
    ended = dpbench("report", "--metric", "cas")
    assert ended.code == 0, ended.err
    found = compared()
    p_values = {pair: float(row["adjusted_p_value"]) for pair, row in found.items()}
    assert p_values.keys() == {("alike", "bad"), ("alike", "good"), ("bad", "good")}
    assert p_values["alike", "good"] > 0.05
    assert p_values["alike", "bad"] < 0.05 and p_values["bad", "good"] < 0.05
    for pair, row in found.items():
        assert float(row["p_value"]) <= p_values[pair]
        assert float(row["ci_low"]) < float(row["difference"]) < float(row["ci_high"])
        assert (row["seeds_a"], row["seeds_b"], row["metric"]) == ("3", "3", "cas")
    assert float(found["alike", "bad"]["difference"]) > 40, "the first less the second"
    assert "adjusted p" in ended.out
    assert dpbench("report", "--check").code == 0
    file = Path("leaderboards/digits.comparisons.csv")
    file.write_text(file.read_text().replace("0.", "1.", 1))
    ended = dpbench("report", "--check")
    assert ended.code == 1 and str(file) in ended.err


def test_copies_of_a_method_are_not_called_different(dpbench: Command) -> None:
    for seed in range(2):
        for method in ("one", "copy"):
            keep_tested(replace(SPEC, method=method, seed=seed), 0.8)
    dpbench("report")
    (row,) = compared().values()
    assert (row["difference"], row["adjusted_p_value"]) == ("0.0", "1.0")


def test_p_values_are_corrected_for_the_pairs_beside_them(dpbench: Command) -> None:
    for seed in range(3):
        for noise, method in enumerate(("a", "b")):
            keep_tested(replace(SPEC, method=method, seed=seed), 0.8 - noise / 20, noise=noise)
    dpbench("report")
    alone = compared()["a", "b"]
    assert alone["adjusted_p_value"] == alone["p_value"]
    for seed in range(3):
        for noise, method in enumerate(("c", "d")):
            keep_tested(replace(SPEC, method=method, seed=seed), 0.8, noise=5 + noise)
    dpbench("report")
    among = compared()["a", "b"]
    assert len(compared()) == 6 and among["p_value"] == alone["p_value"]
    assert float(among["adjusted_p_value"]) > float(alone["p_value"])


@pytest.mark.parametrize(
    "other", [{"epsilon": 10.0}, {"profile": "paper"}, {"dataset_hash": "11ff"}, {"seeds": 1}]
)
def test_what_cannot_be_compared_is_not_and_the_report_says_why(
    dpbench: Command, other: dict[str, Any]
) -> None:
    changed = {name: value for name, value in other.items() if name != "seeds"}
    for seed in range(3):
        keep_tested(replace(SPEC, seed=seed), 0.8)
    for seed in range(other.get("seeds", 3)):
        keep_tested(replace(SPEC, method="other", seed=seed, **changed), 0.2)
    ended = dpbench("report", "--metric", "cas")
    assert not Path("leaderboards/digits.comparisons.csv").exists()
    assert "No methods are compared" in ended.out


@pytest.mark.parametrize("shared", [False, True])
def test_seeds_that_share_public_weights_say_so_and_are_not_compared(
    dpbench: Command, shared: bool
) -> None:
    for seed in range(3):
        keep_tested(replace(SPEC, seed=seed), 0.8)
        # of one recipe and seed 0, which two machines may round to two files
        weights: dict[str, object] = {"sha256": f"ab{min(seed, 1)}"} if shared else {"seed": seed}
        keep_tested(replace(SPEC, method="other", seed=seed), 0.2, pretrained=weights)
    dpbench("report")
    intervals = {row["method"]: row["interval"] for row in cas_rows()}
    assert intervals["toy"] == "seeds and test images"
    assert intervals["other"].endswith("given shared public weights") is shared
    assert Path("leaderboards/digits.comparisons.csv").exists() is not shared
