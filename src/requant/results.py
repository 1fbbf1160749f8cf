"""result.json: written last and atomically, so that it marks a run as done; many of them make one table."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from requant.errors import UserError
from requant.files import write_json

RESULT = "result.json"
STUDENTS = ("teacher", "quantized", "retrained", "conventional")


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write `folder`/result.json."""
    path = folder / RESULT
    write_json(path, result)
    return path


def read_result(path: Path) -> dict[str, Any]:
    """Read a result.json. Raises UserError where it is damaged."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it and run again") from error
    return result


def collect(folder: Path) -> pd.DataFrame:
    """One row for each result.json under `folder`, sorted by path (see `row`)."""
    return table(sorted(folder.rglob(RESULT)))


def table(paths: Iterable[Path]) -> pd.DataFrame:
    """One row for each result.json."""
    return pd.DataFrame([row(read_result(path)) | {"path": str(path)} for path in paths])


def row(result: Mapping[str, Any]) -> dict[str, Any]:
    """A run in one line: settings, sizes in bytes, accuracies as fractions with their counts."""
    config, size = result["config"], result.get("size", {})
    flat = {
        "experiment": config["name"],
        "model": config["model"]["name"],
        "data": config["data"]["name"],
        "clustering": config["clustering"]["method"],
        "centroids": config["centroids"],
        "storage": config["storage"]["method"],
        "retrain": config["retrain"]["method"],
        "unlabeled": config["unlabeled"]["name"],
        "seed": config["seed"],
        "hash": result["hash"],
        "bytes": size.get("retrained_bytes") or size.get("quantized_bytes"),
        "original_bytes": size.get("original_bytes"),
        "size_reduction": size.get("size_reduction"),
    }
    for student in STUDENTS:
        accuracy = result["accuracy"].get(student) or {}
        flat |= {f"{student}_{key}": accuracy.get(key) for key in ("top1", "correct", "n", "agreement", "kl")}
    return flat
