"""Figures 7, 8, 12 and 13: size and accuracy against k, some layers clustered and everything else left alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from requant.figures.paper import Reported
from requant.figures.style import COLUMN, PAGE, PAPER, side_by_side

ROOM = 8  # percent or points, that a label takes
_MARKERS = "osD^vPX"
_LINES = ("-", "--", "-.", ":", "-", "--", "-.")
OTHERS = "0.8"
NORM_KINDS = {"bn_alpha": "scales", "bn_beta": "shifts", "bn_mean": "means", "bn_std": "deviations"}


def draw_size(points: pd.DataFrame, shown: Sequence[str], reported: Reported) -> Figure:
    """Bytes of the file in percent of the original's, against k.

    Args:
        points: rows of points.csv, of one kind.
        shown: the layers that get a colour and a label, as in the column `layers`, if there; others are grey.
        reported: the paper's case, marked with a star.

    """
    points = points.assign(y=100 * points["bytes"] / points["original_bytes"])
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    axes = figure.subplots()
    _draw_lines(axes, points, shown)
    _mark(axes, reported.centroids, reported.size)
    axes.set_ylim(0, 105)
    axes.set_ylabel("size of the file (% of float32)")
    return figure


def draw_accuracy(
    points: pd.DataFrame, shown: Sequence[str], reported: Reported, biases: pd.DataFrame, shown_biases: Sequence[str]
) -> Figure:
    """Change of top-1 in points, against k, and that of biases beside it where there are any; as for `draw_size`."""
    figure, panels = side_by_side(1 if biases.empty else 2, 3.0)
    _draw_changes(panels[0], points, shown)
    _mark(panels[0], reported.centroids, reported.quantized - reported.teacher)
    if not biases.empty:
        _draw_changes(panels[1], biases, shown_biases)
        for axes, kind in zip(panels, ("weights", "biases"), strict=True):
            axes.set_title(f"{kind} of the layers named")
    return figure


def draw_accuracy_and_layers(
    points: pd.DataFrame, shown: Sequence[str], reported: Reported, alone: pd.DataFrame, norms: pd.DataFrame
) -> Figure:
    """As `draw_accuracy`, beside it every layer alone as a map of layers against k; below, batch norm's kinds."""
    figure = Figure(figsize=(PAGE, 3.0 if norms.empty else 5.4), layout="constrained")
    parts: Any = [figure] if norms.empty else figure.subfigures(2, 1, height_ratios=[1.15, 1])
    lines, layers = parts[0].subplots(1, 2, width_ratios=[1, 1.15])
    _draw_changes(lines, points, shown)
    _mark(lines, reported.centroids, reported.quantized - reported.teacher)
    _draw_map(layers, alone)
    if not norms.empty:
        _draw_norms(parts[1], norms, (*shown[:-1], "1-49"))
    return figure


def _draw_norms(part: Any, norms: pd.DataFrame, shown: Sequence[str]) -> None:
    kinds = [kind for kind in NORM_KINDS if kind in set(norms["kind"])]
    for axes, kind in zip(part.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds, strict=True):
        _draw_changes(axes, norms[norms["kind"] == kind], shown, labelled=kind == kinds[0])
        axes.set_title(f"batch norm's {NORM_KINDS[kind]}")
        axes.label_outer()
        axes.xaxis.set_major_locator(FixedLocator([1, 4, 16, 64, 256]))  # all would not fit
        axes.xaxis.set_major_formatter(FixedFormatter(["1", "4", "16", "64", "256"]))


def _draw_changes(axes: Axes, points: pd.DataFrame, shown: Sequence[str], labelled: bool = True) -> None:
    points = points.assign(y=_change(points))
    _draw_lines(axes, points, shown, labelled)
    axes.axhline(0, color="0.35", linestyle=":", linewidth=1)
    axes.set_ylabel(f"change of top-1 (points), n = {_only(points['n']):,}")


def _change(points: pd.DataFrame) -> pd.Series:
    return 100 * (points["correct"] - points["teacher_correct"]) / points["n"]


def _only(values: pd.Series) -> int:
    (value,) = values.unique()
    return int(value)


def _draw_lines(axes: Axes, points: pd.DataFrame, shown: Sequence[str], labelled: bool = True) -> None:
    """`shown` in colour and, if so wanted, labelled, the other layers grey; `points` has the column y."""
    lines = {str(layers): rows.sort_values("centroids") for layers, rows in points.groupby("layers")}
    for layers in sorted(lines.keys() - set(shown)):  # in one order: the same bytes for the same table
        axes.plot(lines[layers]["centroids"], lines[layers]["y"], color=OTHERS, linewidth=0.7, zorder=1)
    colours = sns.color_palette("colorblind", len(shown))
    here = {layers: lines[layers].set_index("centroids")["y"] for layers in shown if layers in lines}
    for i, layers in enumerate(shown):
        if layers in here:
            y, colour = here[layers], colours[i]
            axes.plot(y.index, y, _LINES[i], color=colour, marker=_MARKERS[i], markersize=3, linewidth=1.2, zorder=3)
            if labelled:
                others = [o for name, o in here.items() if name != layers]
                _label_line(axes, layers.replace("-", "–"), y, others, colour)
    _set_centroids(axes, points)


def _label_line(axes: Axes, label: str, y: pd.Series, others: Sequence[pd.Series], colour: Any) -> None:
    """Beside the line, where it is the farthest from the other ones."""
    gaps = np.array([y - other.reindex(y.index, fill_value=np.inf) for other in others or [y + np.inf]])
    free = np.abs(gaps).min(axis=0)
    lowest = min(0.0, float(y.min()), *(float(other.min()) for other in others))
    free[y.to_numpy() - lowest < ROOM] = -1  # a label below it would lie on the axis
    place = free.argmax()
    below = gaps[np.abs(gaps[:, place]).argmin(), place] < 0
    axes.annotate(
        label,
        (y.index[place], y.iloc[place]),
        (4, -4 if below else 4),
        textcoords="offset points",
        va="top" if below else "bottom",
        fontsize=7,
        color=colour,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.3},
    )


def _set_centroids(axes: Axes, points: pd.DataFrame) -> None:
    ks = sorted(points["centroids"].unique())
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ks))
    axes.xaxis.set_major_formatter(FixedFormatter([str(k) for k in ks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("clusters a tensor, k")


def _mark(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], zorder=4, **PAPER)
    axes.annotate("paper", (x, y), (5, -9), textcoords="offset points", fontsize=6.5)


def _draw_map(axes: Axes, alone: pd.DataFrame) -> None:
    """Layers downwards, k to the right; dark is a loss."""
    losses = alone.assign(y=_change(alone), layer=alone["layers"].astype(int)).pivot(
        index="centroids", columns="layer", values="y"
    )
    sns.heatmap(losses, ax=axes, cmap="gray", vmin=-20, vmax=0, cbar_kws={"label": "change of top-1 (points)", "extend": "min"})  # fmt: skip # noqa: E501
    axes.invert_yaxis()
    axes.tick_params(left=False, bottom=False, labelrotation=0)
    axes.set_ylabel("clusters, k")
    axes.set_xlabel(f"layer clustered alone, n = {_only(alone['n']):,}")
