"""result.json: written last and atomically, so that it marks a run as done; many of them make one table."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from requant.errors import UserError
from requant.files import write_json
from requant.layout import RESULT

if TYPE_CHECKING:
    from requant.archive import ArchiveReport
    from requant.compression import Compressed
    from requant.retraining import History
    from requant.scoring import Accuracy

STUDENTS = ("teacher", "quantized", "retrained", "conventional")
STAGES = {"retrained": "retrain", "conventional": "baseline"}
"""Under which key of a result and of its settings the training of each student is."""


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
    return pd.DataFrame([read_run(path)[1] | {"path": str(path)} for path in paths])


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A result.json, and it in one line (see `row`). Raises UserError where it is damaged or something else."""
    result = read_result(path)
    try:
        return result, row(result)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no result of requant ({error!r}): move it away") from error


def method(config: Mapping[str, Any]) -> str:
    """How the weights were grouped: by `auto`, or the clustering's name."""
    automatic = config.get("plan", {}).get("method") == "auto"  # results of before it have none
    return "auto" if automatic else str(config["clustering"]["method"])


def described(config: Mapping[str, Any]) -> str:
    """Method and size, for titles: `kmeans, k = 16`, `auto, 1.55 MB` or `auto, drop 1 %`."""
    if method(config) != "auto":
        return f"{method(config).replace('_', ' ')}, k = {config['centroids']}"
    target = config["target"]
    if target.get("max_drop") is not None:  # results of before it have none
        return f"auto, drop {100 * target['max_drop']:g} %"
    return "auto, " + (f"{target['size_mb']} MB" if target["size_mb"] else f"-{100 * target['reduction']:g} %")


def measure(config: Mapping[str, Any]) -> str:
    """What `top1` of such a run is: of data=none, whose labels are the teacher's classes, the agreement with it.

    Of outputs that are values: the share of the variance of the teacher's that the student's explain.
    """
    if config["model"].get("outputs") == "values":  # results of before do not say
        return "variance explained"
    return "agreement" if config["data"]["name"] == "none" else "top-1"


def images(config: Mapping[str, Any]) -> str:
    """On which images a run measured, for titles."""
    if measure(config) == "top-1":
        return str(config["data"]["name"])
    return f"{config['unlabeled']['name']} (unlabeled)"


def row(result: Mapping[str, Any]) -> dict[str, Any]:
    """A run in one line: settings, sizes in bytes, accuracies as fractions with their counts."""
    config, size = result["config"], result.get("size", {})
    study = config.get("task") == "sensitivity"  # which has a table of its own, and neither one k nor a retraining
    flat = {
        "experiment": config["name"],
        "model": config["model"]["name"],
        "data": config["data"]["name"],
        "clustering": method(config),
        "centroids": None if study or method(config) == "auto" else config["centroids"],
        "storage": config["storage"]["method"],
        "retrain": None if study else config["retrain"]["method"],
        "unlabeled": None if study and measure(config) == "top-1" else config["unlabeled"]["name"],
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


def bytes_of(size: Mapping[str, Any], student: str) -> int:
    """The bytes of a student's file, from a result's `size`; of the teacher its float32 size."""
    found: int | None = size.get("original_bytes" if student == "teacher" else f"{student}_bytes")
    return size["retrained_bytes"] if found is None else found  # results of before lack the baseline's


def final(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row`, and the figures of the network that the run ends with: the retrained one, else the quantized one."""
    student = ending([name for name in STUDENTS if row[f"{name}_top1"] is not None])
    return {**row, **{key: row[f"{student}_{key}"] for key in ("top1", "agreement", "n")}}


def ending(found: Collection[str]) -> str:
    """The name of the network that a run ends with, of those that it found: its smallest one's last state."""
    return next(name for name in ("retrained", "quantized", "teacher") if name in found)


def findings(
    compressed: Compressed,
    reports: Mapping[str, ArchiveReport],
    accuracy: Mapping[str, Accuracy],
    histories: Mapping[str, History],
) -> dict[str, Any]:
    """What a run found out, as result.json holds it: size, accuracy, plan, retrain and baseline."""
    final = reports[ending(reports)]
    original = 4 * sum(tensor.values for tensor in compressed.tensors)
    size = {
        "original_bytes": original,
        "quantized_bytes": reports["quantized"].bytes,
        **{f"{name}_bytes": reports[name].bytes if name in reports else None for name in STAGES},
        "size_reduction": 1 - final.bytes / original,
        "parts": dict(final.parts),
    }
    return {
        "size": size,
        "accuracy": {name: found.to_dict() for name, found in accuracy.items()},
        "plan": _plan(compressed, final),
        **{STAGES[name]: history.to_dict() for name, history in histories.items()},
    }


def _plan(compressed: Compressed, final: ArchiveReport) -> list[dict[str, Any]]:
    """What became of each clustered tensor."""
    return [
        {
            "layer": assignment.tensor.layer,
            "kind": assignment.tensor.kind,
            "name": (name := assignment.tensor.name),
            "values": assignment.tensor.values,
            "centroids": compressed.codebooks[name].k,
            "method": assignment.described,
            "bytes": final.tensors[name],
            "entropy_bits": compressed.codebooks[name].entropy_bits,
        }
        for assignment in compressed.assignments
    ]


def summary(result: Mapping[str, Any]) -> dict[str, float]:
    """The paper's quantities of a run, flat.

    `top1` and `agreement` are those of the network that it ends with; `layer_bytes_<number>` counts what is clustered.
    """
    size = result["size"]
    final = size["retrained_bytes"] or size["quantized_bytes"]
    flat = {
        "bytes": final,
        "bits_per_weight": 8 * final / (size["original_bytes"] / 4),
        "size_reduction": size["size_reduction"],
        "seconds": sum(result["seconds"].values()),
    }
    for name, found in result["accuracy"].items():
        flat |= {f"{name}_top1": found["top1"], f"{name}_agreement": found["agreement"]}
    last = result["accuracy"][ending(result["accuracy"])]
    flat |= {"top1": last["top1"], "agreement": last["agreement"]}
    for tensor in result.get("plan", []):
        if tensor["layer"] is not None:
            key = f"layer_bytes_{tensor['layer']:02}"
            flat[key] = flat.get(key, 0) + tensor["bytes"]
    return flat


def provenance(result: Mapping[str, Any]) -> dict[str, Any]:
    """By what a result was computed, as columns."""
    versions, machine = result["versions"], result["machine"]
    return {
        "hash": result["hash"],
        "git": result["git"],
        "versions": " ".join(f"{name}={versions[name]}" for name in ("requant", "python", "torch", "numpy", "h5py")),
        "machine": f"{machine['cpu']}, {machine['threads']} threads",
    }


TEXT = {"layers": str, "hash": str, "git": str}
"""Columns of tables that look like numbers and are none."""


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys, as they are typed: {"model.name": ...}.

    >>> flattened({"model": {"name": "vgg16"}, "seed": 0})
    {'model.name': 'vgg16', 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
