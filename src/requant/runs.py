"""Where a run lives: a folder named from its settings and a hash of all that can change its result."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from requant.config import Config
from requant.data import NO_LABELS, fingerprint
from requant.errors import ConfigError, WeightsError
from requant.files import exclusive, remove_unfinished, write_json
from requant.layout import LOCK, RESULT, SETTINGS
from requant.network_names import name_by_content, name_in_file
from requant.settings import OF_RULES, all_settings, result_settings

_UNUSED = {
    "compress": ("sensitivity",),
    "sensitivity": ("centroids", "plan", "unlabeled", "retrain", "baseline"),
}
"""By task, settings that cannot change its result."""


_LATER: dict[str, dict[str, Any]] = {
    "model": {"mean": None, "std": None, "outputs": "softmax"},
    "retrain": {"dreams": 0},
    "baseline": {"dreams": 0},
}
"""Settings that earlier versions did not have: where they are as those had it, hashes are as they were."""


def settings_hash(settings: Config) -> str:
    """16 hex digits over the settings that can change the result.

    A file of weights counts by its bytes, a folder of images by its files' names and sizes. Training a teacher
    or measuring sensitivities depends on fewer settings than compressing does.
    """
    if settings.task == "teacher":
        return teacher_hash(settings)
    unused = {*_UNUSED[settings.task], *(OF_RULES if settings.plan.method == "auto" else ())}
    if settings.data.name == NO_LABELS:
        unused.discard("unlabeled")  # on which is measured
    return _hash({key: value for key, value in _identity(settings).items() if key not in unused})


def teacher_hash(settings: Config) -> str:
    """16 hex digits over what determines a trained teacher: architecture, recipe, data."""
    identity = _identity(settings)
    model = {k: v for k, v in identity["model"].items() if k != "quantize"}
    data = {k: v for k, v in identity["data"].items() if k != "limit"}
    precision = settings.trainer.precision
    parts = {"model": model, "teacher": identity["teacher"], "data": data, "precision": precision}
    return _hash(parts | {"version": version("requant")})


def run_folder(settings: Config) -> Path:
    """<out>/<experiment>/<model>-<data>/<key settings>-<hash>."""
    model = re.sub(r"[^\w.-]+", "-", name_in_file(settings.model.name))
    key = [*_compression(settings), settings.storage.method, settings.retrain.method]
    if settings.retrain.method in ("proposed", "reconstruct"):
        key.append(settings.unlabeled.name)
    if settings.task == "teacher":
        key = ["teacher"]
    if settings.task == "sensitivity":
        key = ["sensitivity", *settings.sensitivity.kinds, settings.clustering.method, settings.storage.method]
    name = "-".join([*key, f"s{settings.seed}", settings_hash(settings)])
    return Path(settings.out).expanduser() / settings.name / f"{model}-{settings.data.name}" / name


def _compression(settings: Config) -> list[str]:
    if settings.plan.method != "auto":
        return [settings.clustering.method, f"k{settings.centroids}"]
    target = settings.target
    if target.max_drop is not None:
        return ["auto", f"drop{target.max_drop:g}"]
    return ["auto", f"{target.size_mb:g}mb" if target.size_mb is not None else f"{target.reduction:g}"]


def state(folder: Path) -> str:
    """What is there of a run: done, unfinished, or new."""
    return "done" if (folder / RESULT).exists() else "unfinished" if (folder / SETTINGS).exists() else "new"


@contextmanager
def claimed(folder: Path, settings: Config) -> Iterator[None]:
    """Have the run's folder to oneself: another process that works there is waited for.

    The folder is made and its settings are written; one that was made with other settings is refused. With
    settings.force it is emptied first. What a killed process had not finished writing is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / LOCK):
        if settings.force:
            _empty(folder)
        remove_unfinished(folder)
        mark, expected = folder / SETTINGS, settings_hash(settings)
        if mark.exists() and (found := json.loads(mark.read_text()).get("hash")) != expected:
            raise ConfigError(
                f"{folder} belongs to settings {found}, not {expected}: move it away, or set out=<folder>"
            )
        if not mark.exists():
            write_json(mark, {"hash": expected, "settings": all_settings(settings)})
        yield


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _identity(settings: Config) -> dict[str, Any]:
    data = replace(settings.data, root=_content(settings.data.root), train_root=_content(settings.data.train_root))
    unlabeled = replace(settings.unlabeled, root=_content(settings.unlabeled.root))
    weights = settings.model.weights
    if weights not in ("imagenet", "published", "trained", "none"):
        weights = _bytes(weights)
    model = replace(settings.model, weights=weights, name=name_by_content(settings.model.name))
    found = result_settings(replace(settings, data=data, unlabeled=unlabeled, model=model))
    for group, later in _LATER.items():
        found[group] = {key: value for key, value in found[group].items() if later.get(key, ...) != value}
    if settings.plan.method != "auto":
        for key in ("rotate", "balance"):  # they say nothing to rules, and earlier versions did not have them
            del found["plan"][key]
    return found


@cache
def _bytes(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"model.weights={path} cannot be read ({error.strerror}): give an existing file, none, trained or published"
        ) from error


@cache
def _content(path: str | None) -> str | None:
    return None if path is None else fingerprint(path)


def _hash(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
