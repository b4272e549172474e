from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dpbench.core.metrics import Measurement
from dpbench.core.registry import entries, load
from dpbench.evaluators.model_selection import EVALUATOR as MODEL_SELECTION
from dpbench.evaluators.scaling import EVALUATOR as SCALING
from dpbench.records.accounts import Accounts
from dpbench.records.run_record import RunRecord
from dpbench.records.sample_scores import Scores
from dpbench.report import figures
from dpbench.report.collect import collect
from dpbench.report.derive import derive
from dpbench.report.metrics import (
    AUDIT_EPSILON,
    AUDIT_NOISE_HIGH,
    AUDIT_NOISE_LOW,
    HEADLINES,
    SPEARMAN_A,
    SPEARMAN_B,
    curve_of,
)
from dpbench.report.metrics import MODEL_SELECTION as SELECTION_CURVE
from dpbench.report.metrics import SCALING as SCALING_CURVE
from tests.support.command import Command
from tests.support.reports import (
    CONFIGURATIONS,
    FOREIGN,
    SPEC,
    keep,
    score,
    table,
    with_curves,
)


def test_points_of_curves_have_their_own_tables_and_figures(dpbench: Command) -> None:
    keep(with_curves(SPEC))
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    spearmans = ["model_selection_a_spearman", "model_selection_b_spearman"]
    assert [row["metric"] for row in table()] == ["cas", *spearmans]
    points = {row["metric"]: row["mean"] for row in table("digits.model_selection")}
    assert len(points) == 4 * len(CONFIGURATIONS)
    assert points["model_selection_transfer_logreg_lr0.2_wd0"] == "2.0"
    sizes = {row["metric"]: row["mean"] for row in table("digits.scaling")}
    assert sizes["scaling_cas_n200"] == "20.0" and sizes["scaling_cas_n400"] == ""
    assert "lr0.2" not in ended.out and "scaling_cas" not in ended.out
    for name in ("model_selection", "scaling"):
        file = Path(f"leaderboards/figures/digits.{name}.png")
        assert file.read_bytes()[:4] == b"\x89PNG"
        assert str(file) in ended.err


def test_points_of_curves_of_unknown_origin_are_drawn_without_an_epsilon(dpbench: Command) -> None:
    score(Scores(FOREIGN, measurements=with_curves(SPEC).measurements))
    ended = dpbench("report")
    assert ended.code == 0, ended.err
    table = derive(Path("leaderboards"), Accounts()).table
    (panel,) = figures.draw_scaling(table[table["mean"].notna()]).axes
    assert panel.get_title() == "profile laptop, epsilon not claimed"


def test_the_same_records_give_the_same_figures(dpbench: Command) -> None:
    keep(with_curves(SPEC))
    folder = Path("leaderboards/figures")
    written = []
    for _ in range(2):
        dpbench("report")
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert len(written[0]) == 2 and written[0] == written[1]


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def measured(*records: RunRecord) -> pd.DataFrame:
    """The rows of a leaderboard that have a mean."""
    keep(*records)
    new = collect(Path("runs"), Path("leaderboards"), Accounts()).files
    found = derive(Path("leaderboards"), Accounts(), new).table
    return found[found["mean"].notna()]


def lines_of(panel: Axes) -> dict[tuple[tuple[float, float], ...], Line2D]:
    """The lines of a panel by their points, without those that are in the legend alone."""
    lines = {tuple(map(tuple, line.get_xydata().tolist())): line for line in panel.lines}
    return {points: line for points, line in lines.items() if points}


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_scatter_plot_pairs_configurations_and_quotes_the_leaderboard() -> None:
    table = measured(with_curves(SPEC), with_curves(replace(SPEC, epsilon=10.0), None))
    figure = figures.draw_model_selection(table)
    titles = [panel.get_title() for panel in figure.axes]
    assert [title.rpartition("\n")[2] for title in titles] == [
        *("no Spearman", "Spearman 0.25"),  # the larger epsilon comes first, as in the tables
        *("Spearman 0.50", "Spearman 0.25"),
    ]
    assert "toy, epsilon 10 (laptop)" in titles[0] and "toy, epsilon 1 (laptop)" in titles[2]
    drawn = [sorted(panel.collections[0].get_offsets().tolist()) for panel in figure.axes]
    # against "transfer", one more, and against "real", two more
    assert drawn[0] == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert drawn[1] == [[0, 2], [1, 3], [2, 4], [3, 5]]
    assert legend_of(figure) == ["cnn", "logreg"]


def test_the_scaling_curve_has_a_line_for_each_method_and_one_for_real_images() -> None:
    table = measured(with_curves(SPEC), with_curves(replace(SPEC, method="other")))
    figure = figures.draw_scaling(table)
    (panel,) = figure.axes
    assert panel.get_xscale() == "log"
    assert panel.get_title() == "profile laptop, epsilon 1"
    real = lines_of(panel)[(100, 20), (200, 40)]
    assert real.get_linestyle() == "--"
    assert {"toy", "other", "real images"} <= set(legend_of(figure))
    drawn = [line for line in panel.lines if len(line.get_xydata())]
    assert sum(line.get_linestyle() == "--" for line in drawn) == 1
    assert len(drawn) == 3


def test_an_ensemble_has_a_dotted_line_of_its_methods_colour() -> None:
    record = with_curves(SPEC)
    record.measurements += [
        Measurement(f"scaling_cas_ensemble_n{n}", n / 8, "%", True, n) for n in (100, 200)
    ]
    (panel,) = figures.draw_scaling(measured(record)).axes
    lines = lines_of(panel)
    one, ensemble = lines[(100, 10), (200, 20)], lines[(100, 12.5), (200, 25)]
    assert (one.get_linestyle(), ensemble.get_linestyle()) == ("-", "--")
    assert one.get_color() == ensemble.get_color()


def test_seeds_are_drawn_as_means_with_their_interval() -> None:
    first, second = with_curves(SPEC), with_curves(replace(SPEC, seed=1))
    second.measurements = [
        replace(each, value=each.value + 2) if each.metric == "scaling_cas_n100" else each
        for each in second.measurements
    ]
    (panel,) = figures.draw_scaling(measured(first, second)).axes
    assert ((100, 11), (200, 20)) in lines_of(panel)
    ends = [
        tuple(bar[:, 1]) for bars in panel.containers for bar in bars.lines[2][0].get_segments()
    ]
    # Student's t of one degree of freedom: 12.706 * sqrt(2) / sqrt(2); no accuracy is below 0
    assert any(end == pytest.approx((0.0, 11 + 12.7062), abs=1e-3) for end in ends)
    assert panel.get_ylim()[0] == 0  # there are no accuracies below


def test_names_of_metrics_are_those_that_evaluators_declare() -> None:
    for evaluator, curve in ((MODEL_SELECTION, SELECTION_CURVE), (SCALING, SCALING_CURVE)):
        names = {metric.name for metric in evaluator.metrics}
        points = {name for name in names if curve_of(name) is curve}
        assert {name.removesuffix("*") for name in points} == set(curve.prefixes)
        # what stands for itself stays in the leaderboard
        assert all(curve_of(name) is None for name in names - points)
    declared = {
        metric.name for name in entries("evaluator") for metric in load("evaluator", name).metrics
    }
    assert {*HEADLINES, SPEARMAN_A, SPEARMAN_B} <= declared
    assert {AUDIT_EPSILON, AUDIT_NOISE_LOW, AUDIT_NOISE_HIGH} <= declared
