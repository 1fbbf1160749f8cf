"""A tensor whose centroids and indices are trained: what it computes, and whose gradient goes where."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from requant.archive.steps import step_of, table_of
from requant.assignments import train_assignments
from requant.clustering import cluster
from requant.codebook import Codebook, index_dtype
from requant.errors import UserError
from requant.parametrization import trained_codebook

SHAPE = (3, 4)
floats = st.floats(-4, 4, width=16)  # two that are neighbours in float32 have no middle between them
tensors = st.lists(floats, min_size=12, max_size=12).map(lambda values: torch.tensor(values).reshape(SHAPE))
centroids = st.lists(floats, min_size=1, max_size=6, unique=True).map(lambda values: np.float32(sorted(values)))


def layer_on(codebook: Codebook, original: torch.Tensor | None = None, together: bool = False) -> tuple[Any, ...]:
    layer = nn.Linear(4, 3, bias=False)
    return layer, *train_assignments(layer, "weight", codebook, original, together=together)


@st.composite
def codebooks(draw: st.DrawFn) -> Codebook:
    values = draw(centroids)
    indices = draw(st.lists(st.integers(0, len(values) - 1), min_size=12, max_size=12))
    return Codebook(values, np.uint8(indices).reshape(SHAPE))


@given(codebooks(), tensors)
def test_training_begins_on_the_codebook_whatever_the_original_was(codebook: Codebook, original: torch.Tensor) -> None:
    for start in (None, original):
        layer, _, _ = layer_on(codebook, start)
        assert torch.equal(layer.weight, torch.from_numpy(codebook.dense()))
        assert (trained_codebook(layer, "weight").indices == codebook.indices).all()


@given(codebooks(), tensors)
def test_a_latent_begins_half_of_the_way_to_an_original_in_its_cell(codebook: Codebook, original: torch.Tensor) -> None:
    _, _, latents = layer_on(codebook, original)
    dense = torch.from_numpy(codebook.dense())
    distances = (original[..., None] - torch.from_numpy(codebook.centroids)).abs()
    own = distances.gather(-1, torch.from_numpy(codebook.indices).long()[..., None])[..., 0]
    inside = own <= distances.amin(-1) - 1e-5  # the own centroid is the nearest: clearly
    assert torch.allclose(latents[inside], ((dense + original) / 2)[inside])
    assert ((latents - dense).abs() <= own / 2 + 1e-5).all()


@given(codebooks(), tensors)
def test_no_latent_begins_nearer_to_a_border_than_its_centroid_is_by_half(
    codebook: Codebook, original: torch.Tensor
) -> None:
    # reconstruction leaves up to half of the originals outside their cells: on a border all would leave at once
    _, _, latents = layer_on(codebook, original)
    dense, borders = codebook.dense(), (codebook.centroids[1:] + codebook.centroids[:-1]) / 2
    for border in borders:
        assert (np.abs(latents.detach().numpy() - border) >= np.abs(dense - border) / 2 - 1e-6).all()


@given(codebooks(), tensors, st.permutations(range(6)))
def test_every_latent_takes_its_nearest_centroid_in_any_order(
    codebook: Codebook, latents: torch.Tensor, order: list[int]
) -> None:
    layer, centroids_k, held = layer_on(codebook)
    shuffled = torch.from_numpy(codebook.centroids)[[place for place in order if place < codebook.k]]
    with torch.no_grad():
        held.copy_(latents)
        centroids_k.copy_(shuffled)
    distances = (latents[..., None] - shuffled).abs()
    assert torch.allclose((latents - layer.weight).abs(), distances.amin(-1), atol=1e-6)
    dense = layer.weight.detach().clone()
    trained = trained_codebook(layer, "weight")
    assert (trained.dense() == dense.numpy()).all()
    assert torch.equal(layer.weight, dense)


@given(codebooks(), tensors)
def test_a_centroids_gradient_is_the_mean_of_its_members_and_a_latents_its_own(
    codebook: Codebook, gradients: torch.Tensor
) -> None:
    layer, centroids_k, latents = layer_on(codebook)
    (layer.weight * gradients).sum().backward()
    assert torch.equal(latents.grad, gradients)
    for position, count in enumerate(codebook.counts):
        members = gradients[torch.from_numpy(codebook.indices == position)].double()
        expected = float(members.mean()) if count and codebook.centroids[position] else 0.0  # what is pruned stays
        assert float(centroids_k.grad[position]) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@given(tensors, tensors, st.floats(0.5, 2))
def test_centroids_trained_together_keep_their_proportions(
    weight: torch.Tensor, gradients: torch.Tensor, factor: float
) -> None:
    codebook = Codebook(np.float32([-2, -1, 0, 1, 2]), np.rint(weight.clamp(-2, 2).numpy() + 2).astype(np.uint8))
    layer, scale, latents = layer_on(codebook, weight, together=True)
    (layer.weight * gradients).sum().backward()
    expected = (torch.from_numpy(codebook.dense()).double() * gradients).sum()
    assert float(scale.grad) == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
    assert torch.equal(latents.grad, gradients)
    with torch.no_grad():
        scale.fill_(factor)
    trained = trained_codebook(layer, "weight")
    assert (trained.centroids == codebook.centroids * np.float32(factor)).all()


@given(st.floats(0.0078125, 512, width=32), st.floats(0.5, 2, width=32), st.integers(1, 600))
def test_a_grid_stays_one_to_the_bit(step: float, factor: float, reach: int) -> None:
    """An archive then holds its step, not its table."""
    grid = table_of(np.float32(step), 2 * reach + 1)
    layer, scale, _ = layer_on(Codebook(grid, np.full(SHAPE, reach, index_dtype(grid.size))), together=True)
    with torch.no_grad():
        scale.fill_(factor)
    found = step_of(trained_codebook(layer, "weight").centroids)
    assert found == np.float32(step) * np.float32(factor)


def test_half_precision_stays() -> None:
    layer = nn.Linear(4, 3, bias=False).half()
    train_assignments(layer, "weight", cluster(layer.weight, 4))
    assert trained_codebook(layer, "weight").dtype == np.float16
    assert layer.weight.dtype == torch.float16


def test_what_does_not_fit_or_diverged_is_refused() -> None:
    codebook = Codebook(np.float32([0, 1]), np.zeros(SHAPE, np.uint8))
    with pytest.raises(UserError, match=r"the original of weight has shape \(4, 3\)"):
        layer_on(codebook, torch.zeros(4, 3))
    layer, _, latents = layer_on(codebook)
    with torch.no_grad():
        latents[0, 0] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        trained_codebook(layer, "weight")
