"""Retraining that moves the codebooks too: centroids, and which of them each weight takes, beside all that is free.

End-to-end training of shared weights (centroids by gradients: Han, Mao and Dally, "Deep Compression", 2016; both: Cho
et al., "DKM: Differentiable K-Means Clustering Layer", 2022), with the teacher's outputs in the labels' place.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from requant.codebook import Codebook
from requant.codebook_forms import AnyCodebook, scalars
from requant.errors import ConfigError
from requant.parametrization import train_assignments, train_centroids, trained_codebook
from requant.recipe import Recipe
from requant.retraining.loop import History
from requant.retraining.unlabeled import Images, retrain


@dataclass(frozen=True)
class Movement:
    """How fast codebooks move: a step of Adam, in the median distance of a tensor's neighbouring centroids.

    Attributes:
        centroid_rate: of centroids.
        latent_rate: of the latent values, which take their nearest centroid; 0: indices stay.
        together: a tensor's centroids keep their proportions, so that a grid stays one.

    """

    centroid_rate: float = 0.003
    latent_rate: float = 0.003
    together: bool = False


def retrain_codebooks(
    student: nn.Module,
    teacher: nn.Module,
    images: Images | Tensor,
    *,
    codebooks: Mapping[str, AnyCodebook],
    movement: Movement | None = None,
    only: Collection[str] | None = None,
    recipe: Recipe | None = None,
    **settings: Any,
) -> tuple[History, dict[str, AnyCodebook]]:
    """Train codebooks and all that is not quantized until the student's outputs match the teacher's, in place.

    Each centroid gets the mean gradient of its members; with a latent rate each weight has a latent value beside it,
    which begins at the teacher's weight (within the cell of its centroid) and takes the centroid nearest to it in every
    step. At the end each tensor lies on the codebook that is returned. Codebooks of one centroid are trained as one
    free value; those of buffers (batch norm's statistics) stand still.

    Args:
        student: lies on `codebooks`.
        teacher: as for `retrain`; its weights of the same names and shapes are where latents begin.
        images: unlabeled.
        codebooks: by tensor name, of one table of scalars each.
        movement: how fast they move.
        only: narrows what is trained, by names.
        recipe: of the rest; adam or adamw.
        settings: as for `retrain`.

    Returns:
        What the training did, and the codebooks.

    Raises:
        UserError: for codebooks of another form.
        ConfigError: for another optimizer.

    """
    movement, recipe = movement or Movement(), recipe or Recipe(optimizer="adam", learning_rate=1e-3)
    if recipe.optimizer not in ("adam", "adamw"):
        raise ConfigError(
            f"optimizer={recipe.optimizer}: codebooks are trained in steps of a size that is known: use adam or adamw"
        )
    parameters = {name for name, _ in student.named_parameters()}
    moving = {name for name in codebooks if name in parameters and (only is None or name in only)}
    books = scalars({name: codebooks[name] for name in moving}, "retraining codebooks")
    rates = _put_on_codebooks(student, books, teacher, movement)
    history = retrain(
        student,
        teacher,
        images,
        codebooks=codebooks.keys() - moving,
        only=None if only is None else {*only, *_trained(student)},
        recipe=recipe,
        rates=rates,
        **settings,
    )
    found = {name: trained_codebook(student, name) if name in moving else codebooks[name] for name in codebooks}
    return history, found


def _put_on_codebooks(
    student: nn.Module, books: Mapping[str, Codebook], teacher: nn.Module, movement: Movement
) -> dict[str, float]:
    """Parametrize the student; the rates of what is trained, by name."""
    originals = dict(teacher.named_parameters())
    rates = {}
    for name, book in books.items():
        distance, place = spacing(book), _inside(name)
        if distance is None:
            train_centroids(student, name, book)
        elif not movement.latent_rate:
            train_centroids(student, name, book)
            rates[f"{place}.original"] = movement.centroid_rate * distance
        else:
            original = originals.get(name)
            fits = original is not None and tuple(original.shape) == book.shape
            train_assignments(student, name, book, original if fits else None, together=movement.together)
            step = 2 / (book.k - 1) if movement.together else distance  # of a factor: what moves the outer ones so far
            rates[f"{place}.original0"] = movement.centroid_rate * step
            rates[f"{place}.original1"] = movement.latent_rate * distance
    return rates


def spacing(book: Codebook) -> float | None:
    """The median distance between neighbouring centroids that differ; None where all are one."""
    gaps = np.diff(book.centroids.astype(np.float64))
    return float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else None


def _inside(name: str) -> str:
    """Where `torch.nn.utils.parametrize` keeps what a parameter is made from."""
    path, _, leaf = name.rpartition(".")
    return f"{path}.parametrizations.{leaf}".lstrip(".")


def _trained(student: nn.Module) -> set[str]:
    """The names of what parametrizations hold."""
    return {name for name, _ in student.named_parameters() if ".parametrizations." in f".{name}"}
