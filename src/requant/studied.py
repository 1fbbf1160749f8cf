"""What a study (task=sensitivity) found: layers against k. Of points.csv alone, without torch."""

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


def _by_layer(points: pd.DataFrame, values: "pd.Series[float]") -> pd.DataFrame:
    kinds = list(dict.fromkeys(points["kind"]))
    layers = points["layers"].astype(str)
    first = layers.str.extract(r"(\d+)")[0].astype(int)
    table = points.assign(layers=layers, value=values, first=first, kind=pd.Categorical(points["kind"], kinds))
    found = table.pivot_table(index=["kind", "first", "layers"], columns="centroids", values="value", observed=True)
    return found.droplevel("first")
