"""The conventional retraining, the paper's baseline: train on the original images with their labels."""

from collections.abc import Collection
from typing import Any

from torch import nn

from requant.data import loader
from requant.recipe import Recipe
from requant.retraining.loop import History, fit
from requant.retraining.objectives import MatchLabels
from requant.retraining.trainable import freeze


def retrain_with_labels(
    student: nn.Module,
    images: Any,
    *,
    codebooks: Collection[str] = (),
    only: Collection[str] | None = None,
    recipe: Recipe | None = None,
    label_smoothing: float = 0.0,
    statistics: str = "update",
    workers: int = 0,
    seed: int = 0,
    **training: Any,
) -> History:
    """Train what is not quantized on a labelled data set (see `requant.data.labelled`), in place.

    The arguments are those of `requant.retrain`; a teacher is trained the same way, with nothing quantized. Batch norms
    update their statistics, as the images are those that they were made for.
    """
    recipe = recipe or Recipe()
    freeze(student, codebooks, only)
    train = loader(images, recipe.batch_size, shuffle=True, seed=seed, workers=workers)
    objective = MatchLabels(label_smoothing)
    return fit(student, train, objective, recipe, frozen=codebooks, statistics=statistics, seed=seed, **training)
