"""Train a teacher once and keep it: a safetensors file with its recipe and log beside it."""

import copy
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader

from requant.data import LabelledImages
from requant.evaluation import evaluate
from requant.files import write_json
from requant.models import Architecture, build, load_weights, save_weights
from requant.models.batch_norm import add_batch_norms, fold_batch_norms
from requant.recipe import Recipe
from requant.retraining import retrain_with_labels
from requant.retraining.checkpoint import LAST
from requant.scoring import Accuracy

HALF_PRECISION_COSTS = 0.0005  # top-1 that storing in half precision may change


def train_teacher(
    path: Path,
    architecture: Architecture,
    images: LabelledImages,
    test: DataLoader[Any],
    recipe: Recipe,
    *,
    label_smoothing: float = 0.0,
    batch_norm: bool = False,
    seed: int = 0,
    workers: int = 0,
    trainer: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    loggers: Sequence[Logger] = (),
) -> nn.Module:
    """Train the architecture from scratch, write `path` (.safetensors) and beside it a .json with the log; return it.

    `batch_norm` trains a network that has none with one behind each layer, folded into the weights at the end. Goes on
    from the checkpoint that a killed training of the same `path` left. `loggers` are Lightning's, for the curve.
    """
    torch.manual_seed(seed)
    model = build(architecture)
    added = add_batch_norms(model) if batch_norm else []
    model.to(memory_format=torch.channels_last)
    started = time.perf_counter()
    history = retrain_with_labels(
        model,
        images,
        recipe=recipe,
        label_smoothing=label_smoothing,
        workers=workers,
        seed=seed,
        stochastic=True,
        test=test,
        folder=path.with_suffix(""),
        trainer=trainer,
        loggers=loggers,
        label="train the teacher",
    )
    fold_batch_norms(model, added)
    accuracy = evaluate(model, test)
    log = {"architecture": architecture.to_dict(), "settings": dict(settings or {}), "accuracy": accuracy.to_dict()}
    sha256 = save_weights(path, model, {"name": architecture.name, "correct": f"{accuracy.correct}/{accuracy.n}"})
    (path.with_suffix("") / LAST).unlink(missing_ok=True)
    seconds = {"wall": time.perf_counter() - started}
    write_json(path.with_suffix(".json"), log | {"sha256": sha256, "seconds": seconds, "training": history.to_dict()})
    return model


def keep_teacher(
    path: Path, trained: Path, architecture: Architecture, test: DataLoader[Any], record: Mapping[str, Any]
) -> Accuracy:
    """Copy the teacher that `train_teacher` wrote as `trained` to `path`, small enough to go with a repository.

    In half precision where that changes its top-1 by 0.05 points at most. Beside it a .json: `record`, the training's
    log, the accuracy of what was stored, loaded back, and the file's sha256, which `load_weights` checks.
    """
    model = _loaded(trained, architecture)
    full, stored = evaluate(model, test), model
    half = copy.deepcopy(model).half().float()
    if abs(evaluate(half, test).top1 - full.top1) <= HALF_PRECISION_COSTS:
        stored = half.half()
    log = json.loads(trained.with_suffix(".json").read_text())
    sha256 = save_weights(path, stored, {"name": architecture.name, "correct": f"{full.correct}/{full.n}"})
    write_json(path.with_suffix(".json"), {**log, "sha256": sha256})
    accuracy = evaluate(_loaded(path, architecture), test)
    found = {
        "precision": str(next(stored.parameters()).dtype).removeprefix("torch."),
        "accuracy": accuracy.to_dict(),
        "accuracy_in_float32": full.to_dict(),
    }
    write_json(path.with_suffix(".json"), {**record, **log, **found, "sha256": sha256})
    return accuracy


def _loaded(path: Path, architecture: Architecture) -> nn.Module:
    model = build(architecture)
    load_weights(model, str(path), architecture)
    return model.to(memory_format=torch.channels_last).eval()
