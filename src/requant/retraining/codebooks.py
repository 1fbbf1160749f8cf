"""Retraining that moves the codebooks too: centroids, and which of them each weight takes, beside all that is free.

End-to-end training of shared weights (centroids by gradients: Han, Mao and Dally, "Deep Compression", 2016; both: Cho
et al., "DKM: Differentiable K-Means Clustering Layer", 2022), with the teacher's outputs in the labels' place.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from requant.assignments import train_assignments
from requant.codebook import Codebook
from requant.codebook_factors import FactoredCodebook
from requant.codebook_forms import AnyCodebook, SplitCodebook, VectorCodebook, scalars, table_of
from requant.codebook_trellis import TrellisCodebook
from requant.errors import ConfigError
from requant.parametrization import train_centroids, trained_codebook
from requant.price import Price
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
        hold_bits: indices may take as many bits as at first, all tensors together (`requant.price`): a file of
            storage="entropy" does not grow. For grids; with few centroids it loses more than it saves.

    """

    centroid_rate: float = 0.01
    latent_rate: float = 0.01
    together: bool = False
    hold_bits: bool = False


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
    which begins half of the way from its centroid to the teacher's weight (or to the border of the cell) and takes the
    centroid nearest to it in every step. At the end each tensor lies on the codebook that is returned. Codebooks of one
    centroid are trained as one free value; those of buffers (batch norm's statistics) stand still.

    Args:
        student: lies on `codebooks`.
        teacher: as for `retrain`; its weights of the same names and shapes are where latents begin.
        images: unlabeled.
        codebooks: by tensor name; of one table of scalars each, but where indices stay: then groups and vectors too.
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
    moving = {name: book for name, book in codebooks.items() if name in parameters and (only is None or name in only)}
    if movement.latent_rate:
        moving = dict(scalars(moving, "training which centroid each weight takes (latent_rate above 0)"))
    rates = _put_on_codebooks(student, moving, teacher, movement)
    history = retrain(
        student,
        teacher,
        images,
        codebooks=codebooks.keys() - moving.keys(),
        only=None if only is None else {*(set(only) - moving.keys()), *_trained(student)},
        recipe=recipe,
        rates=rates,
        **settings,
    )
    found = {name: trained_codebook(student, name) if name in moving else codebooks[name] for name in codebooks}
    return history, found


def _put_on_codebooks(
    student: nn.Module, books: Mapping[str, AnyCodebook], teacher: nn.Module, movement: Movement
) -> dict[str, float]:
    """Parametrize the student; the rates of what is trained, by name."""
    originals = dict(teacher.named_parameters())
    rates: dict[str, float] = {}
    price = Price() if movement.hold_bits else None
    for name, book in books.items():
        distance, place = spacing(book), _inside(name)
        if distance is None or not movement.latent_rate:
            train_centroids(student, name, book)
            rates |= {} if distance is None else {f"{place}.original": movement.centroid_rate * distance}
        else:
            assert isinstance(book, Codebook)
            original = originals.get(name)
            fits = original is not None and tuple(original.shape) == book.shape
            train_assignments(student, name, book, original if fits else None, together=movement.together, price=price)
            step = 2 / (book.k - 1) if movement.together else distance  # of a factor: what moves the outer ones so far
            rates[f"{place}.original0"] = movement.centroid_rate * step
            rates[f"{place}.original1"] = movement.latent_rate * distance
    return rates


def spacing(book: AnyCodebook) -> float | None:
    """The median distance between neighbouring centroids of a table that differ; None where all are one."""
    if isinstance(book, SplitCodebook | FactoredCodebook):
        return spacing(book.inner)
    if isinstance(book, TrellisCodebook):
        return spacing(book.plain())
    table = table_of(book).astype(np.float64)
    gaps = _nearest_vectors(table) if isinstance(book, VectorCodebook) else np.diff(np.sort(np.atleast_2d(table)))
    gaps = gaps[(gaps > 0) & np.isfinite(gaps)]
    return float(np.median(gaps)) if gaps.size else None


def _nearest_vectors(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) how far another vector of (k, d) is, a value: the root of the mean square."""
    distances = np.sqrt(((table[:, None] - table) ** 2).mean(-1))
    nearest: NDArray[np.float64] = np.where(distances > 0, distances, np.inf).min(1)
    return nearest


def _inside(name: str) -> str:
    """Where `torch.nn.utils.parametrize` keeps what a parameter is made from."""
    path, _, leaf = name.rpartition(".")
    return f"{path}.parametrizations.{leaf}".lstrip(".")


def _trained(student: nn.Module) -> set[str]:
    """The names of what parametrizations hold."""
    return {name for name, _ in student.named_parameters() if ".parametrizations." in f".{name}"}
