"""Figures of curves, drawn from the leaderboard alone."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from dpbench.core.text import visible
from dpbench.report.metrics import (
    ENSEMBLE,
    MODEL_SELECTION,
    ON_REAL,
    ON_SYNTHETIC,
    REAL,
    SCALING,
    SPEARMAN_A,
    SPEARMAN_B,
    SYNTHETIC,
    TRANSFER,
    curve_of,
)
from dpbench.report.tables import epsilon_text

DPI = 150
PALETTE = "colorblind"
REAL_IMAGES = "real images"
# classifiers of the scaling figure: the beginning of their metrics, and the dashes of their lines
CLASSIFIERS = {
    "one": (ON_SYNTHETIC, ""),
    "ensemble": (ENSEMBLE, (1, 1)),
    "one, on real images": (ON_REAL, (4, 2)),
}
# settings of model selection: which accuracy on real images is compared with that on synthetic
# ones, and the metric of their rank correlation
SETTINGS = {
    "(a) trained on synthetic images": (TRANSFER, SPEARMAN_A),
    "(b) trained on what is tested on": (REAL, SPEARMAN_B),
}


def draw(table: pd.DataFrame, leaderboards: Path) -> dict[Path, bytes]:
    """Draw the figures of all data sets that have points of curves.

    Args:
        table: From ``leaderboard``.
        leaderboards: Folder of the leaderboards.

    Returns:
        The PNGs by path, in ``leaderboards/figures``.
    """
    files = {}
    measured = table[table["mean"].notna()]
    curves = measured["metric"].map(curve_of)
    for dataset, own in measured.groupby("dataset", sort=False):
        for curve, drawn in ((MODEL_SELECTION, draw_model_selection), (SCALING, draw_scaling)):
            if (curves[own.index] == curve).any():
                files[leaderboards / curve.figure(str(dataset))] = _png(drawn(own))
    return files


def draw_model_selection(table: pd.DataFrame) -> Figure:
    """Draw accuracies of configurations on synthetic images against those on real ones.

    Args:
        table: Rows of one data set, all with a mean.

    Returns:
        Two panels for every method and epsilon: settings (a) and (b) of model selection.
    """
    points = _configurations(table)
    grid = sns.relplot(
        points,
        x="synthetic",
        y="real",
        hue="family",
        style="family",
        palette=PALETTE,
        s=70,
        col="panel",
        col_wrap=4,
        height=3,
        facet_kws={"xlim": (0, 102), "ylim": (0, 102)},
    )
    for panel in grid.axes.flat:
        panel.axline((0, 0), slope=1, color="0.7", linewidth=1, zorder=0)
    grid.set_titles("{col_name}")
    grid.set_axis_labels("accuracy on synthetic images (%)", "accuracy on real images (%)")
    families = points["family"].nunique()
    sns.move_legend(grid, "upper center", bbox_to_anchor=(0.5, 0), ncols=families, title=None)
    figure: Figure = grid.figure
    return figure


def draw_scaling(table: pd.DataFrame) -> Figure:
    """Draw accuracy on real images against the number of images trained on.

    Args:
        table: Rows of one data set, all with a mean.

    Returns:
        A panel for every profile and epsilon, with a line for every method, a dotted one for its
        ensemble, and a dashed one for real images. Bars are 95% intervals over seeds.
    """
    points = _scaling_points(table)
    methods = [name for name in points["method"].unique() if name != REAL_IMAGES]
    colours = dict(zip(methods, sns.color_palette(PALETTE, len(methods)), strict=True))
    colours[REAL_IMAGES] = (0, 0, 0)
    grid = sns.relplot(
        points,
        kind="line",
        x="size",
        y="mean",
        hue="method",
        style="classifier",
        units="records",
        estimator=None,
        palette=colours,
        markers=True,
        dashes={name: dashes for name, (_, dashes) in CLASSIFIERS.items()},
        col="panel",
        col_wrap=2,
        height=4,
        aspect=1.2,
        facet_kws={"sharex": False},
    )
    for name, panel in grid.axes_dict.items():
        own = points[points["panel"] == name]
        for method, bars in own.dropna(subset="ci_low").groupby("method"):
            ends = (bars["mean"] - bars["ci_low"], bars["ci_high"] - bars["mean"])
            colour = colours[method]
            panel.errorbar(bars["size"], bars["mean"], ends, fmt="none", ecolor=colour, capsize=3)
        sizes = sorted(own["size"].unique())
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
    # intervals of two seeds reach far, but there is no accuracy to be seen out there
    low, high = grid.axes.flat[0].get_ylim()
    grid.set(ylim=(max(low, 0), min(high, 100)))
    grid.figure.subplots_adjust(right=1)  # the legend stands outside; the file is cut to fit it
    sns.move_legend(grid, "center left", bbox_to_anchor=(1.02, 0.5))
    grid.set_titles("{col_name}")
    grid.set_axis_labels("images trained on", "accuracy on real test images (%)")
    dataset = table["dataset"].iloc[0]
    grid.figure.suptitle(f"{dataset}, same number of steps at every size", y=1.02)
    figure: Figure = grid.figure
    return figure


def _configurations(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each panel and configuration: its two accuracies and its family."""
    panels = []
    selection = table[table["metric"].str.startswith("model_selection_")]
    for _, run in selection.groupby("records", sort=False):
        means = run.drop_duplicates("metric", keep="last").set_index("metric")["mean"]
        for setting, (prefix, spearman) in SETTINGS.items():
            accuracies = {"synthetic": _of(means, SYNTHETIC), "real": _of(means, prefix)}
            points = pd.DataFrame(accuracies).dropna()
            correlation = f"Spearman {means[spearman]:.2f}" if spearman in means else "no Spearman"
            title = f"{_title(run)}\n{setting}\n{correlation}"
            panels.append(points.assign(panel=title, family=points.index.str.split("_").str[0]))
    return pd.concat(panels, ignore_index=True)


def _of(means: pd.Series, prefix: str) -> pd.Series:
    """The means of the metrics that begin with a prefix, by the rest of their names."""
    own = means[means.index.str.startswith(prefix)]
    return own.set_axis(own.index.str.removeprefix(prefix))


def _title(run: pd.DataFrame) -> str:
    one = run.iloc[0]
    return f"{one['method']}, epsilon {epsilon_text(one['epsilon'])} ({one['profile']})"


def _scaling_points(table: pd.DataFrame) -> pd.DataFrame:
    """The points of scaling curves, with their panel and classifier."""
    parts = []
    for classifier, (prefix, _) in CLASSIFIERS.items():
        own = table[table["metric"].str.startswith(prefix)]
        sizes = own["metric"].str.removeprefix(prefix).astype(int)
        parts.append(own.assign(classifier=classifier, size=sizes, real=prefix == ON_REAL))
    points = pd.concat(parts, ignore_index=True)
    epsilon = points["epsilon"].map(epsilon_text)
    points["panel"] = "profile " + points["profile"] + ", epsilon " + epsilon
    points["method"] = points["method"].mask(points["real"], REAL_IMAGES)
    # real images give the same for all runs on one machine, and are then drawn once
    again = points.duplicated(["panel", "size", "mean"])
    return points[~(points["real"] & again)]


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    # without the version of matplotlib, which would change the file and nothing in it
    metadata = {"Software": None}
    # names are text: "$" in one begins no formula
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text(visible(text.get_text(), breaks=True))
    figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    return file.getvalue()
