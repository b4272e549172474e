from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.privacy.epsilon import epsilon
from dpbench.privacy.events import DPSGDEvent, Event, GaussianEvent
from dpbench.records.run_record import RunRecord
from dpbench.report import spent
from dpbench.report.spent import spent_together, total_epsilon
from tests.support.certified import certificate
from tests.support.command import Command
from tests.support.reports import SPEC, finished, keep

SUM = GaussianEvent(1.0, 1.0, "sum")
WEIGHTS = DPSGDEvent(0.1, 1.0, 1.0, 30, "weights")
DELTA = 1e-5


def run(seed: int, *events: Event, epsilon: float = 20.0) -> RunRecord:
    compute = {"private_evaluations": 5000}
    spec = replace(SPEC, seed=seed, epsilon=epsilon, compute=compute, method_args={})
    cost = {"private_evaluations": 5000, "public_evaluations": 0}
    return finished(spec, 50.0, privacy=certificate(spec, *events), cost=cost)


RUNS = [*(run(seed, SUM, WEIGHTS) for seed in range(3)), run(3, SUM)]


def test_what_runs_spent_together_is_the_composition_of_all_their_events() -> None:
    exact = epsilon([SUM] * 4 + [WEIGHTS] * 3, DELTA)
    total = total_epsilon(RUNS, DELTA, "add_remove")
    assert exact <= total <= exact + 1.5
    assert total > max(total_epsilon([one], DELTA, "add_remove") for one in RUNS)


class Once(Counter[Event]):
    """Counts what is alike once."""

    def update(self, events: Iterable[Event] | None = None) -> None:  # type: ignore[override]
        super().update(set(events or ()) - self.keys())


def test_a_total_that_counts_equal_runs_once_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spent, "Counter", Once)
    exact = epsilon([SUM] * 4 + [WEIGHTS] * 3, DELTA)
    assert total_epsilon(RUNS, DELTA, "add_remove") < exact


def test_only_private_runs_count_and_each_data_set_by_itself() -> None:
    other = run(0, SUM)
    other.spec = replace(other.spec, dataset="other", dataset_hash="11ff")
    not_private = run(8, SUM, epsilon=math.inf)
    lines = spent_together([*RUNS, other, not_private])
    assert [line.split(" spent")[0] for line in lines] == [
        "Together the 4 committed private runs on digits",
        "Together the 1 committed private runs on other",
    ]


def test_page_and_terminal_say_it_in_a_line(dpbench: Command) -> None:
    keep(*RUNS)
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    (line,) = spent_together(RUNS)
    assert line in Path("leaderboards/index.html").read_text(encoding="utf-8")
    assert line in " ".join(ended.out.split())
