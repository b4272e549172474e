"""Figures of curves, drawn from rows of leaderboards and from nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dpbench.core.files import replace_atomically
from dpbench.report.curves import (
    ENSEMBLE,
    MODEL_SELECTION,
    ON_REAL,
    ON_SYNTHETIC,
    REAL,
    SCALING,
    SYNTHETIC,
    TRANSFER,
    curve_of,
)
from dpbench.report.leaderboard import Row

DPI = 150
# Okabe and Ito 2008: the colour-blind tell them apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# for each panel of a scatter plot: x, y, their labels, and the metric in the title
SETTINGS = (
    (SYNTHETIC, TRANSFER, "(a) trained on synthetic images", "model_selection_a_spearman"),
    (SYNTHETIC, REAL, "(b) trained on what is tested on", "model_selection_b_spearman"),
)


def write(table: Sequence[Row], leaderboards: Path) -> list[Path]:
    """Draw the figures of all data sets that have points of curves.

    Returns:
        The paths of the PNGs, in ``leaderboards/figures``.
    """
    files = []
    for dataset in dict.fromkeys(row.dataset for row in table):
        rows = [row for row in table if row.dataset == dataset and row.mean is not None]
        for curve, draw in ((MODEL_SELECTION, scatter), (SCALING, lines)):
            if any(curve_of(row.metric) is curve for row in rows):
                file = leaderboards / curve.figure(dataset)
                file.parent.mkdir(parents=True, exist_ok=True)
                _save(draw(rows), file)
                files.append(file)
    return files


def scatter(rows: Sequence[Row]) -> Figure:
    """Accuracies of configurations on synthetic images against those on real ones.

    Args:
        rows: Of one data set; all have a mean.

    Returns:
        Two panels, settings (a) and (b) of model selection, for every method and epsilon.
    """
    groups = _groups([row for row in rows if row.metric.startswith("model_selection_")])
    figure = Figure(figsize=(9, 4.3 * len(groups) + 0.3), layout="constrained")
    panels = figure.subplots(len(groups), 2, squeeze=False)
    families: list[str] = []
    for group, line in zip(groups, panels, strict=True):
        means = {row.metric: row.mean for row in group}
        for panel, (x, y, setting, spearman) in zip(line, SETTINGS, strict=True):
            pairs = _pairs(group, x, y)
            families += [name for name in pairs if name not in families]
            for family, points in pairs.items():
                colour, marker = _style(families.index(family))
                panel.scatter(*zip(*points, strict=True), c=colour, marker=marker, label=family)
            _identity(panel)
            found = means.get(spearman)
            said = "no Spearman" if found is None else f"Spearman {found:.2f}"
            panel.set_title(f"{_label(group[0])}\n{setting}: {said}", fontsize=10)
            panel.set_xlabel("accuracy on synthetic images (%)")
            panel.set_ylabel("accuracy on real images (%)")
    handles = {
        label: handle
        for panel in panels.flat
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        *(list(handles.values()), list(handles)),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
    )
    return figure


def lines(rows: Sequence[Row]) -> Figure:
    """Accuracy on real images against the number of images trained on.

    Args:
        rows: Of one data set; all have a mean.

    Returns:
        A panel for every profile, with a line for every method and epsilon, a dotted one for its
        ensemble, and dashed ones for real images. Bars are 95% intervals over seeds.
    """
    rows = [row for row in rows if curve_of(row.metric) is SCALING]
    profiles = list(dict.fromkeys(row.profile for row in rows))
    figure = Figure(figsize=(6.5 * len(profiles), 4.8), layout="constrained")
    panels = figure.subplots(1, len(profiles), squeeze=False)[0]
    for panel, profile in zip(panels, profiles, strict=True):
        groups = _groups([row for row in rows if row.profile == profile])
        # the same for all runs on one machine, and then drawn once
        for real in dict.fromkeys(tuple(_curve(group, ON_REAL)) for group in groups):
            if real:
                sizes, means, _ = zip(*real, strict=True)
                panel.plot(sizes, means, "k--", label="real images")
        for place, group in enumerate(groups):
            colour, marker = _style(place)
            for prefix, line, said in ((ON_SYNTHETIC, "-", ""), (ENSEMBLE, ":", ", ensemble")):
                if curve := _curve(group, prefix):
                    sizes, means, bars = zip(*curve, strict=True)
                    panel.errorbar(
                        *(sizes, means, bars),
                        color=colour,
                        marker=marker,
                        linestyle=line,
                        capsize=3,
                        label=_label(group[0]) + said,
                    )
        _sizes(panel, sorted({_size(row) for row in rows if row.profile == profile}))
        panel.set_xlabel("images trained on")
        # intervals of two seeds reach far, but there is no accuracy to be seen out there
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, 0), min(high, 100))
        panel.set_ylabel("accuracy on real test images (%)")
        panel.set_title(f"{rows[0].dataset}, same number of steps at every size", fontsize=10)
        panel.legend(frameon=False, fontsize=8)
    return figure


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of the same runs together, in their order."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.records].append(row)
    return list(groups.values())


def _label(row: Row) -> str:
    return f"{row.method}, epsilon {row.epsilon_said} ({row.profile})"


def _style(place: int) -> tuple[str, str]:
    """A colour and a marker, different ones for the first 49 places."""
    turn, colour = divmod(place, len(COLOURS))
    return COLOURS[colour], MARKERS[(colour + turn) % len(MARKERS)]


def _pairs(group: Sequence[Row], x: str, y: str) -> dict[str, list[tuple[float, float]]]:
    """By family, the accuracies of configurations that have both."""
    means = {row.metric: row.mean for row in group}
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for metric, first in means.items():
        configuration = metric.removeprefix(x)
        second = means.get(y + configuration)
        if metric.startswith(x) and first is not None and second is not None:
            pairs[configuration.split("_")[0]].append((first, second))
    return pairs


def _curve(group: Sequence[Row], prefix: str) -> list[tuple[int, float, float]]:
    """Size, mean and half the interval (0 for one seed), by rising size."""
    return sorted(
        (_size(row), row.mean, 0.0 if row.ci_high is None else row.ci_high - row.mean)
        for row in group
        if row.metric.startswith(prefix) and row.mean is not None
    )


def _size(row: Row) -> int:
    return int(row.metric.rpartition("_n")[2])


def _identity(panel: Axes) -> None:
    """Where both accuracies are the same."""
    low = min(panel.get_xlim()[0], panel.get_ylim()[0])
    high = min(max(panel.get_xlim()[1], panel.get_ylim()[1]), 100)
    panel.plot((low, high), (low, high), color="0.7", linewidth=1, zorder=0)
    panel.set_aspect("equal")


def _sizes(panel: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic axis with ticks at the sizes."""
    panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])


def _save(figure: Figure, file: Path) -> None:
    def save(partial: Path) -> None:
        # without the version of matplotlib, which would change the file and nothing in it
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": None})

    replace_atomically(file, save)
