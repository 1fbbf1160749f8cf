"""Figure 16: how long retraining takes, with and without labels."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from requant.figures.paper import Reported
from requant.figures.style import COLOURS, COLUMN, HATCHES

NEAR = 0.1
"""Points of top-1 from the final accuracy that count as there."""


def draw_times(curves: pd.DataFrame, reported: Reported) -> Figure:
    """Seconds to the last epoch, and to within 0.1 points of the final accuracy: means over the runs, a dot a run."""
    times = _times(curves)
    figure = Figure(figsize=(COLUMN, 2.2), layout="constrained")
    axes = figure.subplots()
    columns = {"to the last epoch": "end", f"to {NEAR} points from the final top-1": "near"}
    for place, column in enumerate(columns.values()):
        for offset, (retrain, name) in enumerate((("proposed", "retrained"), ("conventional", "conventional"))):
            seconds = times[times["retrain"] == retrain][column]
            _draw_bar(axes, place + 0.42 * (offset - 0.5), seconds, name, retrain if place == 0 else None)
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_ylabel(f"seconds of retraining\n({len(times) // 2} runs each)")
    axes.legend(frameon=False, fontsize=7, title=f"paper: −{reported.time_saved} %", title_fontsize=7)
    return figure


def _draw_bar(axes: Axes, x: float, seconds: pd.Series, name: str, label: str | None) -> None:
    axes.bar([x], [seconds.mean()], 0.4, color=COLOURS[name], hatch=HATCHES[name], edgecolor="white", label=label)
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
