"""One style for all figures: sized for a two-column page, colour-blind safe, told apart in grey by hatches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import seaborn as sns

PAGE = 7.2
"""Width of a page's text, inches."""

_COLOURS = sns.color_palette("colorblind")
COLOURS = {"teacher": "0.35", "quantized": _COLOURS[3], "retrained": _COLOURS[0], "conventional": _COLOURS[1]}
HATCHES = {"teacher": "", "quantized": "///", "retrained": "", "conventional": "..."}
MARKERS = {"teacher": "", "quantized": "x", "retrained": "o", "conventional": "s"}


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
