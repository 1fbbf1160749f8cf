"""Train a teacher once and keep it: a safetensors file with its recipe and log beside it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from requant.data import LabelledImages
from requant.evaluation import evaluate
from requant.files import write_json
from requant.models import Architecture, build, save_weights
from requant.recipe import Recipe
from requant.retraining import retrain_with_labels
from requant.retraining.checkpoint import LAST


def train_teacher(
    path: Path,
    architecture: Architecture,
    images: LabelledImages,
    test: DataLoader[Any],
    recipe: Recipe,
    *,
    label_smoothing: float = 0.0,
    seed: int = 0,
    workers: int = 0,
    trainer: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Train the architecture from scratch, write `path` (.safetensors) and beside it a .json with the log; return it.

    Goes on from the checkpoint that a killed training of the same `path` left.
    """
    torch.manual_seed(seed)
    model = build(architecture).to(memory_format=torch.channels_last)
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
        label="train the teacher",
    )
    accuracy = evaluate(model, test)
    log = {"architecture": architecture.to_dict(), "settings": dict(settings or {}), "accuracy": accuracy.to_dict()}
    sha256 = save_weights(path, model, {"name": architecture.name, "correct": f"{accuracy.correct}/{accuracy.n}"})
    (path.with_suffix("") / LAST).unlink(missing_ok=True)
    seconds = {"wall": time.perf_counter() - started}
    write_json(path.with_suffix(".json"), log | {"sha256": sha256, "seconds": seconds, "training": history.to_dict()})
    return model
