"""Figures 9, 14 and 15: top-1 after each epoch of retraining."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from requant.figures.paper import Case
from requant.figures.style import COLOURS, MARKERS, PAPER, WAYS, label_lines, side_by_side
from requant.figures.tables import NEW_CROPS

MOST_POINTS = 10.0  # below the teacher that are shown, where training begins lower still
NEAR = 3.0  # points to the teacher, within which the end of a retraining is enlarged
MOST_MARKS = 25  # of a line
_DASHES = {"conventional": "--", "fresh": "-."}
_MARKERS = "osD^vP"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def draw_epochs(curves: pd.DataFrame) -> Figure:
    """The proposed retraining, a line for each k: from before the first epoch on, and its end again, enlarged.

    `curves` has a row for each retraining, k, seed and epoch (`requant.figures.tables.curves`).
    """
    curves = curves[curves["retrain"].isin(("proposed", "proposed" + NEW_CROPS))]
    figure, (whole, end) = side_by_side(2, 2.8)
    lines = {k: _mean(curves[curves["centroids"] == k]) for k in sorted(curves["centroids"].unique())}
    colours = sns.color_palette("viridis", len(lines), desat=0.9)
    begin = _settled(list(lines.values()), _teacher(curves))
    for axes, first in ((whole, 0), (end, begin)):
        for i, line in enumerate(lines.values()):
            mark, dashes = _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)]
            style = {"linestyle": dashes, "color": colours[i], "marker": mark, "markersize": 3}
            axes.plot(line.index, line, markevery=_marks(line), **style)
        _draw_teacher(axes, curves, first)
        _label(axes, curves)
    shown = [line[line.index >= begin] for line in lines.values()]
    low, high = min(line.min() for line in shown), _teacher(curves)
    end.set_xlim(begin - 0.2, float(curves["epoch"].max()) + 0.2)
    end.set_ylim(low - 0.08 * (high - low), high + 0.12 * (high - low))
    end.set_title("its end, enlarged")
    labels = {f"k = {k}": (float(line.iloc[-1]), colours[i]) for i, (k, line) in enumerate(lines.items())}
    label_lines(end, float(curves["epoch"].max()), labels, gap=(high - low) / 16)
    return figure


def _settled(lines: list[pd.Series], teacher: float) -> int:
    """The first epoch from which on all lines are near the teacher, but the last at most."""
    lowest = pd.concat(lines, axis=1).min(axis=1)
    near = lowest[lowest < teacher - NEAR]
    return int(min(near.index.max() + 1 if len(near) else 0, lowest.index.max()))


def draw_against(cases: Mapping[str, Case]) -> Figure:
    """Proposed against conventional, by the images seen, a panel a network.

    The mean over seeds and, where there are several, all between least and greatest; a reconstruction is a point, and
    so is the end of runs that are shorter than the longest. The paper's final accuracies are marked, each as its
    distance from the paper's own teacher.
    """
    figure, panels = side_by_side(len(cases), 2.8)
    seeds: dict[str, list[int]] = {}
    for axes, (network, (curves, reported)) in zip(panels, cases.items(), strict=True):
        for way, name in WAYS.items():
            for label, count in _draw_way(axes, curves[curves["retrain"] == way], name, way).items():
                seeds.setdefault(label, []).append(count)
        last = _thousands(curves).max()
        for way in ("proposed", "conventional"):
            axes.plot([last], [_teacher(curves) + getattr(reported, way) - reported.teacher], **PAPER)
        _draw_teacher(axes, curves)
        _label(axes, curves)
        _show_the_end(axes, curves)
        axes.set_title(network)
        axes.set_xlabel("images seen, thousands (stars: the paper)")
    drawn = [axes.get_legend_handles_labels() for axes in panels]
    looks = {label: handle for handles, labels in drawn for handle, label in zip(handles, labels, strict=True)}
    texts = [f"{label}, {_in_words(seeds[label])}" for label in looks]
    panels[-1].legend(looks.values(), texts, frameon=False, loc="lower right", fontsize=6.5)
    return figure


def _show_the_end(axes: Axes, curves: pd.DataFrame) -> None:
    """Where a network begins far below, leave that out and say so."""
    begin, floor = float(_top1(curves[curves["epoch"] == 0]).mean()), _teacher(curves) - MOST_POINTS
    if begin < floor:
        axes.set_ylim(floor, _teacher(curves) + 1)
        note = axes.annotate(f"quantized: {begin:.1f} %", (0, floor), (2, 3), textcoords="offset points", fontsize=6.5)
        note.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})


def _draw_way(axes: Axes, rows: pd.DataFrame, name: str, label: str) -> dict[str, int]:
    """The longest runs as a line, the ends of shorter ones as a point; the seeds of each, by its label."""
    if rows.empty:
        return {}
    if name == "reconstruct":
        rows = rows[rows["epoch"] > 0]
    lengths = _thousands(rows).groupby(rows["hash"]).transform("max")
    long, short = rows[lengths == lengths.max()], rows[(lengths < lengths.max()) & (_thousands(rows) == lengths)]
    by_images = _top1(long).groupby(_thousands(long))
    mean = by_images.mean()
    style = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 3, "linewidth": 1.1}
    axes.plot(mean.index, mean, linestyle=_DASHES.get(name, "-"), label=label, markevery=_marks(mean), **style)
    axes.fill_between(mean.index, by_images.min(), by_images.max(), color=COLOURS[name], alpha=0.25)
    seeds = {label: long["seed"].nunique()}
    for images, ends in _top1(short).groupby(_thousands(short)):
        spread = [[ends.mean() - ends.min()], [ends.max() - ends.mean()]]
        shorter = f"{label}, {images:.0f} thousand in all"
        seeds[shorter] = short["seed"].nunique()
        axes.errorbar([images], [ends.mean()], spread, linestyle="", mfc="white", capsize=2, label=shorter, **style)
    return seeds


def _marks(line: pd.Series) -> int:
    """Every how many points of a line has a mark."""
    return -(-len(line) // MOST_MARKS)


def _thousands(curves: pd.DataFrame) -> pd.Series:
    return curves["epoch"] * curves["images_an_epoch"] / 1000


def _mean(rows: pd.DataFrame) -> pd.Series:
    return _top1(rows).groupby(rows["epoch"]).mean()


def _top1(rows: pd.DataFrame) -> pd.Series:
    return 100 * rows["correct"] / rows["n"]


def _teacher(curves: pd.DataFrame) -> float:
    return float((100 * curves["teacher_correct"] / curves["n"]).iloc[0])


def _draw_teacher(axes: Axes, curves: pd.DataFrame, x: float = 0) -> None:
    axes.axhline(_teacher(curves), color=COLOURS["teacher"], linestyle=":", linewidth=1)
    axes.annotate("teacher", (x, _teacher(curves)), (2, 2), textcoords="offset points", fontsize=6.5)


def _label(axes: Axes, curves: pd.DataFrame) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"epoch of retraining ({_seeds(curves)})")
    axes.set_ylabel(f"top-1 (%), n = {curves['n'].iloc[0]:,}")


def _seeds(rows: pd.DataFrame) -> str:
    return _in_words([rows["seed"].nunique()])


def _in_words(counts: list[int]) -> str:
    """How many seeds; panel by panel where they differ."""
    different = [str(count) for count in dict.fromkeys(counts)]
    return f"{' and '.join(different)} seed{'s' if different != ['1'] else ''}"
