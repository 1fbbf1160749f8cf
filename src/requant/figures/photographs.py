"""How many photographs it takes: accuracy against their number, for each way of retraining without labels."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from requant.errors import UserError
from requant.figures.headline import networks
from requant.figures.paper import Case
from requant.figures.style import COLOURS, MARKERS, WAYS, side_by_side
from requant.layout import RESULT
from requant.results import read_result

_LINES = {"proposed": "-", "reconstruct": "--"}


def by_photographs(folder: Path) -> pd.DataFrame:
    """A row for each retrained network below a folder whose runs say how many pictures they took (unlabeled.limit)."""
    rows = []
    for path in sorted(folder.rglob(RESULT)):
        result = read_result(path)
        limit = result["config"]["unlabeled"]["limit"]
        rows += [{"photographs": limit, **row} for row in networks(result) if limit is not None and row["seconds"]]
    if not rows:
        raise UserError(f"there is no {RESULT} with unlabeled.limit below {folder}: run the study first")
    return pd.DataFrame(rows).sort_values(["model", "way", "photographs", "seed"], kind="stable", ignore_index=True)


def draw_photographs(cases: Mapping[str, Case]) -> Figure:
    """Top-1 against the number of distinct photographs, a panel a network; all between the least and greatest seed."""
    figure, panels = side_by_side(len(cases), 2.6)
    for axes, (network, (rows, _)) in zip(panels, cases.items(), strict=True):
        _draw_network(axes, rows)
        axes.set_title(network)
    panels[0].legend(frameon=False, loc="lower right", fontsize=7)
    return figure


def _draw_network(axes: Axes, rows: pd.DataFrame) -> None:
    for way, line in _LINES.items():
        found = rows[rows["way"] == way]
        if found.empty:
            continue
        top1 = (100 * found["correct"] / found["n"]).groupby(found["photographs"])
        mean, name = top1.mean(), WAYS[way]
        look = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 3.5, "label": way}
        axes.plot(mean.index, mean, linestyle=line, **look)
        axes.fill_between(mean.index, top1.min(), top1.max(), color=COLOURS[name], alpha=0.25)
    teacher = float((100 * rows["teacher_correct"] / rows["n"]).iloc[0])
    axes.axhline(teacher, color=COLOURS["teacher"], linestyle=":", linewidth=1)
    counts = sorted(rows["photographs"].unique())
    axes.annotate("teacher", (counts[0], teacher), (2, 2), textcoords="offset points", fontsize=6.5)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"distinct photographs ({rows['seed'].nunique()} seeds)")
    axes.set_ylabel(f"top-1 (%), n = {rows['n'].iloc[0]:,}")
