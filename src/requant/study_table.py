"""A study of layers as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from requant.results import images
from requant.studied import TOLERANCE, UNITS, changes, is_counted, least_centroids, sizes


def study_table(result: Mapping[str, Any], points: pd.DataFrame) -> Group:
    """A line for each kind and layers, a column for each k: what that costs; and the least k that is borne."""
    config, lost, size = result["config"], changes(points), sizes(points)
    several = len(lost.index.unique("kind")) > 1
    what = "these layers" if several else f"the {lost.index[0][0]}s of these layers"
    title = f"{config['model']['name']} on {images(config)}: change in {UNITS[is_counted(points)]}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("layers", no_wrap=True)
    for heading in (*map(str, lost.columns), "borne", "file"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (kind, layers), row, share, k in zip(
        lost.index.tolist(), lost.to_numpy(), size.to_numpy(), least_centroids(lost), strict=True
    ):
        borne = (str(k), f"{share[lost.columns.get_loc(k)]:.1f}") if k else ("none", "")
        table.add_row(f"{kind} {layers}" if several else layers, *map(_points, row), *borne)
    return Group(Text(f"{title}\nwith {what} clustered alone at k"), table, Text(_caption(result, points)))


def _caption(result: Mapping[str, Any], points: pd.DataFrame) -> str:
    teacher = result["accuracy"]["teacher"]["top1"]
    lines = [f"n = {int(points['n'].iloc[0]):,}" + (f", teacher {100 * teacher:.2f} %" if is_counted(points) else "")]
    lines.append(f"borne: the least k from which on none costs more than {TOLERANCE} points;")
    lines.append("file: its size then, in % of float32")
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in result["seconds"].items())
    return "\n".join([*lines, seconds])


def _points(change: float) -> str:
    return "" if pd.isna(change) else f"{round(change, 1) + 0.0:.1f}"
