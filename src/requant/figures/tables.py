"""results.csv: the rows that a figure is drawn from, collected from the folders of finished and unfinished runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from requant.errors import UserError
from requant.layout import POINTS, RESULT
from requant.results import STAGES, TEXT, provenance, read_result

NEW_CROPS = ", new crops"
"""Behind the name of a way: its unlabeled images are others in every epoch."""
_BY_EPOCHS = ("proposed", "codebook")


def read_table(path: Path) -> pd.DataFrame:
    """A results.csv. Raises UserError where there is none."""
    if not path.exists():
        raise UserError(f"{path} is missing: make {path.parent.name.partition('_')[0]}-runs makes it")
    return pd.read_csv(path, dtype=TEXT)


def points(folder: Path) -> pd.DataFrame:
    """All rows of the studies (task=sensitivity) below a folder, in order; also of those that are not finished.

    A point that several studies measured comes once: on as many images, they all found the same.
    """
    found = [pd.read_csv(path, dtype=TEXT) for path in sorted(folder.rglob(POINTS))]
    if not found:
        raise UserError(f"there is no {POINTS} below {folder}: run the study first")
    order = {column: position for position, column in enumerate(("kind", "n", "first", "layers", "centroids"))}
    rows = pd.concat(found).drop_duplicates(["kind", "layers", "centroids", "n"])
    table = rows.assign(first=lambda rows: rows["layers"].str.partition("-")[0].astype(int))
    return table.sort_values(list(order), kind="stable").drop(columns="first").reset_index(drop=True)


def curves(folder: Path) -> pd.DataFrame:
    """A row for each epoch of each retraining below a folder; epoch 0 is the quantized network before it.

    Runs of plan=auto, which have no k, are left out.
    """
    results = [read_result(path) for path in sorted(folder.rglob(RESULT))]
    rows = [row for result in results if result["config"]["plan"]["method"] != "auto" for row in _epochs(result)]
    if not rows:
        raise UserError(f"there is no {RESULT} with a retraining below {folder}: run the study first")
    return pd.DataFrame(rows).sort_values(["centroids", "retrain", "seed", "epoch"], kind="stable", ignore_index=True)


def _epochs(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of a reconstruction, which has no epochs, its end counts as the first."""
    accuracy = result["accuracy"]
    for name, key in STAGES.items():
        if key not in result:
            continue
        found, after = result[key], accuracy[name]
        prepared = found["seconds_of_teacher"] + found.get("seconds_of_start", 0.0)
        start = {"epoch": 0, **accuracy["quantized"], "seconds": prepared}
        end = {"epoch": 1, **after, "seconds": found["seconds"]}
        for entry in (start, *(found["curve"] or [end])):
            epoch = {name: entry[name] for name in ("epoch", "correct", "n", "seconds")}
            images = found["images_seen"] // max(1, found["epochs"])
            yield {"retrain": way_of(result["config"], key), **epoch, "images_an_epoch": images, **origin(result)}


def way_of(config: Mapping[str, Any], stage: str) -> str:
    """How a network was retrained, from a run's settings: the method, after what it started from, and new crops."""
    method, start = str(config[stage]["method"]), config[stage].get("start", "cluster")
    crops = NEW_CROPS if method in _BY_EPOCHS and config["unlabeled"].get("fresh", False) else ""
    return (method if start == "cluster" else f"{start}, {method}") + crops


def origin(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a row needs so that it can be traced to its run."""
    config = result["config"]
    return {
        "centroids": config["centroids"],
        "seed": config["seed"],
        "teacher_correct": result["accuracy"]["teacher"]["correct"],
        "model": config["model"]["name"],
        "data": config["data"]["name"],
        "unlabeled": config["unlabeled"]["name"],
        **provenance(result),
    }
