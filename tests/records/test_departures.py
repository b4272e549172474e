from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dpbench.core.registry import entries, load
from dpbench.records.departures import MEANINGS, departures, of_spec
from dpbench.records.run_record import RunRecord, read_record
from tests.support.reports import SPEC

RECORDS = Path(__file__).parents[2] / "leaderboards" / "records"


def declared(record: RunRecord) -> set[str]:
    """What the method's own declarations say of a record."""
    arguments = record.spec.method_args
    ours = getattr(load("method", record.spec.method), "departures", ())
    return {
        each.what for each in ours if each.field in arguments and each.ours(arguments[each.field])
    }


def test_committed_records_have_the_departures_that_their_methods_declare() -> None:
    one_of_each = {file.parent.name: file for file in RECORDS.rglob("*.json")}
    records = [read_record(file) for file in one_of_each.values()]
    assert {record.spec.method: set(of_spec(record.spec)) for record in records} == {
        record.spec.method: declared(record) for record in records
    }
    not_yet = {
        "natural spectrum",
        "class statistics",
        "sampled levels only",
    }  # of no committed record
    assert set().union(*map(declared, records)) == set(MEANINGS) - not_yet


def test_every_ingredient_that_a_method_declares_has_a_meaning() -> None:
    kinds = [load("method", name) for name in entries("method")]
    ours = {each.what for kind in kinds for each in getattr(kind, "departures", ())}
    assert ours == set(MEANINGS)


def test_what_a_record_says_of_its_departures_goes_before_its_hyper_parameters() -> None:
    record = RunRecord(replace(SPEC, method="dpdm", method_args={"centre_learning_rate": 0.1}))
    assert departures(record) == ("class centres",)
    record.resolved = {"departures": ["another"]}
    assert departures(record) == ("another",)


def test_methods_of_ours_and_smaller_sizes_depart_from_no_paper() -> None:
    centred = {"centre_learning_rate": 0.1}
    assert of_spec(replace(SPEC, method="class-mean", method_args=centred)) == ()
    assert of_spec(replace(SPEC, method="dpdm", method_args={"channels": 8})) == ()
