from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from dpbench.core.metrics import Measurement
from dpbench.records.run_record import RunRecord
from dpbench.records.sample_scores import Scores
from tests.support.command import Command, one_error
from tests.support.reports import (
    FOREIGN,
    SPEC,
    finished,
    keep,
    score,
    table,
    with_curves,
)

LAPTOP = replace(SPEC, profile="laptop")


def cnn(method: str, value: float | None, **spec: object) -> RunRecord:
    reason = "it is < 5" if value is None else ""
    found = Measurement("cas_cnn", value, "%", True, 10, "test", reason=reason)
    return finished(replace(LAPTOP, method=method, **spec), value, reason, measurements=[found])


def overview() -> list[list[str]]:
    """The cells of the page's tables, without tags, line by line."""
    page = Path("leaderboards/index.html").read_text(encoding="utf-8").replace("\n", "")
    lines = re.findall(r"<tr>(?:<td>.*?</td>)+</tr>", page)
    return [
        [re.sub(r"<[^>]*>", " ", each).strip() for each in re.findall(r"<td>(.*?)</td>", line)]
        for line in lines
    ]


def test_the_overview_has_budgets_from_the_largest_and_in_each_the_best_first(
    dpbench: Command,
) -> None:
    keep(cnn("worse", 50.0), cnn("better", 60.0), cnn("spendthrift", 40.0, epsilon=10.0))
    keep(*(cnn("seeds", value, seed=seed) for seed, value in enumerate((70.0, 72.0))))
    foreign = replace(FOREIGN, profile="laptop")
    score(Scores(foreign, measurements=cnn("", 99.0).measurements))
    assert dpbench("report").code == 0
    names = [line[0] for line in overview()]
    assert names == ["spendthrift", "seeds", "better", "worse", "mine (unknown origin)"]
    assert overview()[1][1:3] == ["1", "71%  2 seeds 58.29 to 83.71 (seeds)"]
    assert overview()[-1][1:3] == ["not claimed", "99%  1 seed"]


def test_the_overview_says_why_a_number_is_not_there(dpbench: Command) -> None:
    keep(cnn("some", 50.0), cnn("none", None))
    assert dpbench("report").code == 0
    assert overview()[1][:3] == ["none", "1", "&ndash;"]
    assert 'title="it is &lt; 5"' in Path("leaderboards/index.html").read_text(encoding="utf-8")


def test_the_overview_shows_what_audits_found(dpbench: Command) -> None:
    found = {
        "audit_epsilon_lower": 0.4,
        "audit_sigma_ratio_low": 0.9,
        "audit_sigma_ratio_high": 1.1,
        "audit_epsilon_ceiling": 2.5,
        "audit_alarms": 0.0,
    }
    record = cnn("some", 50.0)
    record.measurements += [Measurement(*each, "", True, 0) for each in found.items()]
    keep(record)
    assert dpbench("report").code == 0
    assert overview()[0][-3:] == ["at least 0.4, could have shown 2.5", "0.900 to 1.100", "none"]


def test_the_overview_leaves_runs_of_claims_to_their_page(dpbench: Command) -> None:
    keep(cnn("some", 50.0), cnn("other", 60.0, profile="claims"))
    assert dpbench("report").code == 0
    assert [line[0] for line in overview()] == ["some"]
    page = Path("leaderboards/index.html").read_text(encoding="utf-8")
    assert re.search(r'Of \d+ published claims: \d+ untested. <a href="claims.html">', page)


def test_what_the_overview_links_to_is_there(dpbench: Command) -> None:
    keep(with_curves(LAPTOP), *(cnn(name, 50.0, dataset="my set/1") for name in "ab"))
    assert dpbench("report").code == 0
    page = Path("leaderboards/index.html").read_text(encoding="utf-8")
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert len(targets) == 5
    assert [each for each in targets if not Path("leaderboards", each).exists()] == []


def test_methods_with_an_ingredient_of_ours_are_starred_with_a_footnote(dpbench: Command) -> None:
    ours = {"by_hand": [], "departures": ["class centres"]}
    record = cnn("dpdm", 60.0)
    record.resolved = ours
    keep(record, cnn("dp-merf", 50.0))
    assert dpbench("report").code == 0
    assert [line[0] for line in overview()] == ["dpdm*", "dp-merf"]
    page = Path("leaderboards/index.html").read_text(encoding="utf-8")
    assert "* The method of the paper with class centres of ours: denoised images start" in page
    departures = {row["method"]: row["departures"] for row in table()}
    assert departures == {"dpdm": "class centres", "dp-merf": ""}


def test_the_overview_says_by_how_many_revisions_a_line_was_made(dpbench: Command) -> None:
    for seed, revision in enumerate("ab"):
        record = cnn("some", 50.0 + seed, seed=seed)
        record.environment = {"git_revision": revision}
        keep(record)
    keep(cnn("other", 1.0))
    assert dpbench("report").code == 0
    assert [line[0] for line in overview()] == ["some  by 2 revisions of the code", "other"]


def test_the_terminal_has_a_line_for_each_method_and_budget(dpbench: Command) -> None:
    values = {"cas_cnn": 50.0, "fd_cnn": 2.5}
    for method, points in (("worse", 0.0), ("better", 30.0)):
        for seed in range(2):
            rows = [
                Measurement("cas_cnn", values["cas_cnn"] + points + seed, "%", True, 10, "test"),
                Measurement("fd_cnn", values["fd_cnn"], "", False, 10, "test"),
                Measurement("cas_cnn_class0", 1.0, "%", True, 10, "test"),
            ]
            spec = replace(SPEC, method=method, seed=seed)
            keep(finished(spec, None, "none", measurements=rows))
    ended = dpbench("report")
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["method", "eps", "seeds", "cas_cnn", "fd_cnn"] in lines
    better, worse = (
        lines.index([m, "1", "2", v, "2.5"]) for m, v in (("better", "80.5%"), ("worse", "50.5%"))
    )
    assert better < worse and "class0" not in ended.out
    assert lines[-2:] == [
        ["page", "leaderboards/index.html"],
        ["more", "dpbench", "report", "--metric", "cas_cnn"],
    ]
    ended = dpbench("report", "--check")
    assert ended.out == "leaderboards is what its records give: 4 files\n"


def test_rows_of_a_metric_are_printed_on_demand(dpbench: Command) -> None:
    keep(finished(SPEC, 50.0))
    assert "50 %" in dpbench("report", "--metric", "c*").out
    assert "Did you mean 'cas'?" in one_error(dpbench("report", "--metric", "css"), 2)
