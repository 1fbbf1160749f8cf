"""What a study (task=sensitivity) found: layers against k. Of points.csv alone, without torch."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from requant.results import TEXT

TOLERANCE = 0.5
"""Points of top-1 that a layer may cost: about what the paper's networks lose in all."""
UNITS = {True: "points of top-1", False: "points of agreement with the teacher"}


def read_points(path: Path) -> pd.DataFrame:
    """A study's points.csv."""
    return pd.read_csv(path, dtype=TEXT)


def changes(points: pd.DataFrame) -> pd.DataFrame:
    """By (kind, layers) and k: top-1 against the teacher's, in points; where nothing is counted, agreement against 100.

    Args:
        points: rows of points.csv. Kinds are in the order in which they come, layers in the network's.

    """
    if is_counted(points):
        found = 100 * (points["correct"] - points["teacher_correct"]) / points["n"]
    else:
        found = 100 * (points["agreement"] - 1)
    return _by_layer(points, found)


def is_counted(points: pd.DataFrame) -> bool:
    """Whether outputs are right or wrong: values are neither."""
    return bool(points["correct"].notna().all())


def sizes(points: pd.DataFrame) -> pd.DataFrame:
    """By (kind, layers) and k: the file in percent of the network in float32."""
    return _by_layer(points, 100 * points["bytes"] / points["original_bytes"])


def least_centroids(changes: pd.DataFrame) -> list[int]:
    """For each row the least k from which on no k costs more than `TOLERANCE`; 0 where even the greatest does."""
    borne = changes.fillna(0).to_numpy() >= -TOLERANCE
    from_here_on = np.logical_and.accumulate(borne[:, ::-1], axis=1)[:, ::-1]
    return [int(changes.columns[row.argmax()]) if row.any() else 0 for row in from_here_on]


def rules(changes: pd.DataFrame) -> str:
    """A plan of the layers measured alone, each at the least k that it bears, as run.py takes it; empty: none does.

    What several layers cost together is more than what each does.
    """
    layers: dict[tuple[str, int], list[int]] = {}
    for (kind, number), k in zip(changes.index.tolist(), least_centroids(changes), strict=True):
        if k and number.isdigit():
            layers.setdefault((kind, k), []).append(int(number))
    found = [f'{{layers: "{_ranges(n)}", kind: {kind}, centroids: {k}}}' for (kind, k), n in sorted(layers.items())]
    return f"plan.rules=[{', '.join(found)}]" if found else ""


def _ranges(numbers: list[int]) -> str:
    """Rising numbers as a rule has them: 1,3,7-9."""
    runs = [list(run) for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    ends = [(run[0][1], run[-1][1]) for run in runs]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def _by_layer(points: pd.DataFrame, values: "pd.Series[float]") -> pd.DataFrame:
    kinds = list(dict.fromkeys(points["kind"]))
    layers = points["layers"].astype(str)
    first = layers.str.extract(r"(\d+)")[0].astype(int)
    table = points.assign(layers=layers, value=values, first=first, kind=pd.Categorical(points["kind"], kinds))
    found = table.pivot_table(index=["kind", "first", "layers"], columns="centroids", values="value", observed=True)
    return found.droplevel("first")
