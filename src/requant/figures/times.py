"""Figure 16: how long retraining takes, with and without labels."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from requant.figures.paper import Case
from requant.figures.style import COLOURS, HATCHES, WAYS, side_by_side

NEAR = 0.1
"""Points of top-1 from the final accuracy that count as there."""
_COLUMNS = {"to the end": "end", f"to {NEAR} points\nfrom the final top-1": "near"}


def draw_times(cases: Mapping[str, Case]) -> Figure:
    """Seconds to the end, and to within 0.1 points of the final accuracy: means over the runs, a dot a run."""
    figure, panels = side_by_side(len(cases), 2.8)
    for axes, (network, (curves, reported)) in zip(panels, cases.items(), strict=True):
        _draw_network(axes, _times(curves[curves["retrain"].isin(list(WAYS))]))
        axes.set_title(f"{network} (paper: −{reported.time_saved} %)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(WAYS), frameon=False)
    return figure


def _draw_network(axes: Axes, times: pd.DataFrame) -> None:
    ways = [way for way in WAYS if way in set(times["retrain"])]
    width = 0.84 / len(ways)
    for place, column in enumerate(_COLUMNS.values()):
        for position, way in enumerate(ways):
            seconds = times[times["retrain"] == way][column]
            x = place + width * (position - (len(ways) - 1) / 2)
            _draw_bar(axes, x, 0.95 * width, seconds, WAYS[way], way if place == 0 else None)
    axes.set_xticks(range(len(_COLUMNS)), list(_COLUMNS))
    runs = len(times) // len(ways)
    axes.set_ylabel(f"seconds ({runs} run{'s' if runs > 1 else ''} each)")


def _draw_bar(axes: Axes, x: float, width: float, seconds: pd.Series, name: str, label: str | None) -> None:
    look = {"color": COLOURS[name], "hatch": HATCHES[name], "edgecolor": "white", "label": label}
    axes.bar([x], [seconds.mean()], width, **look)
    axes.plot([x] * len(seconds), seconds, "o", color="black", markersize=2.5)
    axes.annotate(f"{seconds.mean():.0f}", (x, seconds.max()), (0, 3), textcoords="offset points", ha="center")


def _times(curves: pd.DataFrame) -> pd.DataFrame:
    """A row a run: seconds to the end, and to the first epoch from which on it stays near the final accuracy."""
    runs = curves.sort_values("epoch").groupby(["retrain", "centroids", "seed"])
    return pd.DataFrame([{"retrain": key[0], **_of_run(rows)} for key, rows in runs])


def _of_run(rows: pd.DataFrame) -> dict[str, float]:
    elapsed, top1 = rows["seconds"].cumsum(), 100 * rows["correct"] / rows["n"]
    away = (top1 - top1.iloc[-1]).abs() > NEAR
    first = int(away.to_numpy().nonzero()[0].max(initial=-1)) + 1
    return {"end": elapsed.iloc[-1], "near": elapsed.iloc[first]}
