"""One style for all figures: sized for a two-column page, colour-blind safe, told apart in grey by hatches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAGE = 7.2
"""Width of a page's text, inches."""
COLUMN = 3.5
"""Width of one of a page's two columns, inches."""
PAPER: dict[str, Any] = {
    "marker": "*",
    "markersize": 9,
    "color": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
}
"""The look of a value that the paper reports."""

_COLOURS = sns.color_palette("colorblind")
COLOURS = {
    "teacher": "0.35",
    "quantized": _COLOURS[3],
    "retrained": _COLOURS[0],
    "fresh": _COLOURS[4],
    "conventional": _COLOURS[1],
    "reconstruct": _COLOURS[2],
}
HATCHES = {
    "teacher": "",
    "quantized": "///",
    "retrained": "",
    "fresh": "\\\\",
    "conventional": "...",
    "reconstruct": "xxx",
}
MARKERS = {"teacher": "", "quantized": "x", "retrained": "o", "fresh": "^", "conventional": "s", "reconstruct": "D"}
WAYS = {
    "proposed": "retrained",
    "proposed, new crops": "fresh",
    "conventional": "conventional",
    "reconstruct": "reconstruct",
}
"""The look of each way of retraining, by its name in results.csv."""
_LEADER = {"arrowstyle": "-", "linewidth": 0.6, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 3}


@contextmanager
def style() -> Iterator[None]:
    """The settings of matplotlib that every figure shares."""
    settings: dict[Any, Any] = {
        "backend": "agg",
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "hatch.linewidth": 0.6,
        "savefig.dpi": 200,
        "pdf.fonttype": 42,
    }
    with mpl.rc_context(settings):
        yield


def side_by_side(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, as wide as a column where there is one, as a page where there are more; inches."""
    figure = Figure(figsize=(PAGE if panels > 1 else COLUMN, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def save(figure: Figure, folder: Path, name: str = "figure") -> list[Path]:
    """Write <name>.png and <name>.pdf, the same bytes for the same figure; returns their paths."""
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in paths:
        figure.savefig(path, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    return paths


def label_lines(axes: Axes, x: float, labels: dict[str, tuple[float, Any]], gap: float) -> None:
    """Write each line's label beside its end: (height, colour) by label; moved apart to `gap`, in units of y.

    A thin line leads from the end to the label, which without colours is all that tells whose it is.
    """
    ends = sorted(labels.items(), key=lambda item: item[1][0])
    heights: list[float] = []
    for _, (y, _) in ends:
        heights.append(max(y, heights[-1] + gap) if heights else y)
    lifted = sum(height - y for height, (_, (y, _)) in zip(heights, ends, strict=True)) / len(ends)
    for height, (label, (y, colour)) in zip(heights, ends, strict=True):
        axes.annotate(
            label, (x, y), (1.045, height - lifted), textcoords=axes.get_yaxis_transform(), va="center", fontsize=6.5,
            color=colour, annotation_clip=False, arrowprops={**_LEADER, "color": colour},
        )  # fmt: skip
