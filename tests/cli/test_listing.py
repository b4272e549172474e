"""``dpbench list``: what there is, what a method takes, and what a metric is."""

from __future__ import annotations

import json
from dataclasses import fields
from types import ModuleType
from typing import get_args

import pytest

from dpbench.core.registry import Entry, Kind, entries, load
from dpbench.core.stated import stated
from tests.support.command import Command


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_is_read_from_a_file_is_what_the_class_has(kind: Kind) -> None:
    for entry in entries(kind).values():
        found, texts = load(kind, entry.name), stated(entry)
        assert texts["summary"] == found.summary
        for name in ("paper", "requires"):
            assert texts.get(name, "") == getattr(found, name, ""), entry.name


def test_nothing_is_read_of_a_module_that_is_not_there_or_would_be_imported() -> None:
    for module in ("nowhere_at_all", "package.module", ""):
        assert stated(Entry("x", "generators", module, "X", "x", "1")) == {}


def test_a_list_of_methods_says_whose_they_are_and_what_they_need(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = {item["name"]: item for item in json.loads(dpbench("list", "methods", "--json").out)}
    assert listed["dpdm"]["paper"] == "Dockhorn et al. 2022, arXiv 2210.09929"
    assert listed["dpsyngen-coarse"]["requires"].startswith("programmatic images")
    assert listed["toy"]["summary"] == "one noisy mean image"
    lines = dpbench("list", "methods").out.splitlines()
    (dpdm,) = (line for line in lines if line.startswith("dpdm "))
    assert "Dockhorn et al. 2022 " in dpdm and "diffusion model trained from scratch" in dpdm
    (toys,) = (line for line in lines if line.startswith("toy "))
    assert toys.rstrip().endswith("[toy 1.0]")


@pytest.mark.parametrize("name", sorted(entries("method")))
def test_a_method_is_described_with_every_hyper_parameter(dpbench: Command, name: str) -> None:
    described = json.loads(dpbench("list", "methods", name, "--json").out)
    method = load("method", name)
    said = {each["name"]: each for each in described["hyper_parameters"]}
    assert list(said) == [each.name for each in fields(method) if each.init]
    assert all(each["description"] for each in said.values()), "a docstring has it"
    assert len(described["presets"]) == len(method.presets)
    ended = dpbench("list", "methods", name)
    assert ended.code == 0 and all(f"\n{each} " in ended.out for each in said)


def test_every_metric_is_explained_in_a_sentence(dpbench: Command) -> None:
    metrics = json.loads(dpbench("list", "metrics", "--json").out)
    declared = [m.name for e in entries("evaluator") for m in load("evaluator", e).metrics]
    assert [each["name"] for each in metrics] == declared
    assert all(each["description"] for each in metrics)
    better = {each["name"]: each["better"] for each in metrics}
    assert (better["cas_cnn"], better["fd_cnn"]) == ("higher", "lower")
    of_one = dpbench("list", "metrics", "fidelity").out
    assert "fd_cnn_floor" in of_one and "cas_cnn" not in of_one
