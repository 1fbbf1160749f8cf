"""Figures 9, 14 and 15: top-1 after each epoch of retraining."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from requant.figures.paper import Reported
from requant.figures.style import COLOURS, COLUMN, PAPER, label_lines

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def draw_epochs(curves: pd.DataFrame) -> Figure:
    """The proposed retraining, a line for each k, from before the first epoch on.

    `curves` has a row for each retraining, k, seed and epoch (`requant.figures.tables.curves`).
    """
    curves = curves[curves["retrain"] == "proposed"]
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    axes = figure.subplots()
    ks = sorted(curves["centroids"].unique())
    colours = sns.color_palette("viridis", len(ks), desat=0.9)
    labels = {}
    for i, k in enumerate(ks):
        mean = _mean(curves[curves["centroids"] == k])
        axes.plot(mean.index, mean, linestyle=_LINES[i % len(_LINES)], color=colours[i], marker="o", markersize=2.5)
        labels[f"k = {k}"] = (float(mean.iloc[-1]), colours[i])
    _draw_teacher(axes, curves)
    low, high = axes.get_ylim()
    label_lines(axes, float(curves["epoch"].max()), labels, gap=(high - low) / 22)
    _label(axes, curves)
    return figure


def draw_against(curves: pd.DataFrame, reported: Reported) -> Figure:
    """Proposed against conventional: the mean over seeds and, where there are several, all between least and greatest.

    The paper's final accuracies are marked, each as its distance from the paper's own teacher.
    """
    figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
    axes = figure.subplots()
    teacher = _teacher(curves)
    for retrain, name in (("proposed", "retrained"), ("conventional", "conventional")):
        rows = curves[curves["retrain"] == retrain]
        by_epoch, line = _top1(rows).groupby(rows["epoch"]), "-" if retrain == "proposed" else "--"
        axes.plot(by_epoch.mean().index, by_epoch.mean(), line, color=COLOURS[name], label=retrain)
        axes.fill_between(by_epoch.min().index, by_epoch.min(), by_epoch.max(), color=COLOURS[name], alpha=0.25)
        offset = getattr(reported, retrain) - reported.teacher
        axes.plot([rows["epoch"].max()], [teacher + offset], **PAPER)
    _draw_teacher(axes, curves)
    _label(axes, curves)
    axes.legend(frameon=False, loc="lower right", fontsize=7)
    return figure


def _mean(rows: pd.DataFrame) -> pd.Series:
    return _top1(rows).groupby(rows["epoch"]).mean()


def _top1(rows: pd.DataFrame) -> pd.Series:
    return 100 * rows["correct"] / rows["n"]


def _teacher(curves: pd.DataFrame) -> float:
    return float((100 * curves["teacher_correct"] / curves["n"]).iloc[0])


def _draw_teacher(axes: Axes, curves: pd.DataFrame) -> None:
    axes.axhline(_teacher(curves), color=COLOURS["teacher"], linestyle=":", linewidth=1)
    axes.annotate("teacher", (0, _teacher(curves)), (2, 2), textcoords="offset points", fontsize=6.5)


def _label(axes: Axes, curves: pd.DataFrame) -> None:
    seeds = curves["seed"].nunique()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"epoch of retraining ({seeds} seed{'s' if seeds > 1 else ''})")
    axes.set_ylabel(f"top-1 (%), n = {curves['n'].iloc[0]:,}")
