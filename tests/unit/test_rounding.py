"""Second moments of what layers see, and weights rounded so that errors cancel by them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_reconstruction import images
from torch import Tensor

from requant.reconstruction.graph import Layer
from requant.reconstruction.moments import second_moments
from requant.reconstruction.rounding import compensated_indices


def test_second_moments_are_those_of_the_unfolded_inputs() -> None:
    batches = [images(2, 12), images(1, 12, seed=3)]
    layer = Layer("w", None, None, stride=(2, 1), padding=((1, 1), (2, 2)), dilation=(2, 1))
    found = second_moments(layer, torch.zeros(5, 3, 3, 2), batches)
    rows = [F.unfold(b, (3, 2), dilation=(2, 1), padding=(1, 2), stride=(2, 1)) for b in batches]
    rows = torch.cat([r.transpose(1, 2).reshape(-1, 18) for r in rows])
    assert found.shape == (1, 18, 18)
    assert torch.allclose(found[0], rows.T @ rows / len(rows), atol=1e-5)


def test_second_moments_of_groups_and_of_linear_layers() -> None:
    batch = torch.randn(4, 6, 5, 5)
    grouped = second_moments(Layer("w", None, None, groups=3), torch.zeros(9, 2, 1, 1), [batch])
    rows = batch.movedim(1, -1).reshape(-1, 3, 2)
    assert torch.allclose(grouped, torch.einsum("ngi,ngj->gij", rows, rows) / len(rows), atol=1e-5)
    flat = torch.randn(7, 4)
    assert torch.allclose(second_moments(Layer("w", None, None), torch.zeros(2, 4), [flat])[0], flat.T @ flat / 7)


def test_many_positions_are_sampled_evenly() -> None:
    batch = torch.randn(64, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    found = second_moments(Layer("w", None, None), torch.zeros(3, 2, 1, 1), [batch] * 2)
    assert torch.allclose(found[0], torch.eye(2), atol=0.05)


@pytest.mark.parametrize("axis", [2, 3])
def test_few_batches_see_all_rows_and_columns_alike(axis: int) -> None:
    bands = F.one_hot(torch.arange(32) // 4).float().T  # each channel is 1 in four rows, or columns, of 32
    batch = (bands[None, :, :, None] if axis == 2 else bands[None, :, None, :]).expand(64, 8, 32, 32)
    found = second_moments(Layer("w", None, None), torch.zeros(3, 8, 1, 1), [batch] * 8)  # one in 8 x 8 outputs
    assert torch.allclose(found[0].diagonal(), torch.full((8,), 1 / 8), atol=0.05)


def test_images_smaller_than_the_grids_step_are_sampled_too() -> None:
    batch = torch.ones(64, 1, 2, 3)
    moments = [second_moments(Layer("w", None, None), torch.zeros(1, 1, 1, 1), [batch] * n) for n in (1, 500)]
    assert all(torch.equal(m, torch.ones(1, 1, 1)) for m in moments)


def test_without_correlations_the_nearest_centroid_is_chosen() -> None:
    weight, centroids = torch.randn(6, 8), torch.tensor([-1.0, -0.2, 0.3, 2.0])
    nearest = (weight[..., None] - centroids).abs().argmin(-1)
    assert (compensated_indices(weight, torch.eye(8)[None], centroids, 0.01) == nearest).all()
    assert (compensated_indices(weight, torch.zeros(1, 8, 8), centroids, 0.01) == nearest).all()  # nothing comes in


def errors_in_outputs(seed: int, values: int, groups: int) -> tuple[float, float]:
    """Squared errors of a layer's outputs, its weights rounded to the nearest, and so that errors cancel."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(groups, values, values, generator=random) / values**0.5
    rows = torch.randn(groups, 400, values, generator=random) @ mixing + torch.randn(groups, 400, 1, generator=random)
    moments = rows.transpose(1, 2) @ rows / 400
    weight = torch.randn(groups * 4, values, generator=random)
    centroids = torch.linspace(-3, 3, 9)

    def error(indices: Tensor) -> float:
        difference = (centroids[indices] - weight).reshape(groups, 4, values)
        return float((difference @ rows.transpose(1, 2)).square().sum())

    nearest = (weight[..., None] - centroids).abs().argmin(-1)
    return error(nearest), error(compensated_indices(weight, moments, centroids, 0.01))


@given(seed=st.integers(0, 10_000), values=st.sampled_from([70, 130]), groups=st.sampled_from([1, 3]))
def test_compensated_errors_are_smaller_in_the_outputs(seed: int, values: int, groups: int) -> None:
    nearest, compensated = errors_in_outputs(seed, values, groups)
    assert compensated < nearest


@pytest.mark.parametrize("values", [2, 5])
@pytest.mark.parametrize("groups", [1, 3])
def test_of_few_values_compensated_errors_are_smaller_on_the_mean(values: int, groups: int) -> None:
    """Not each time, as it looks no further ahead."""
    found = [errors_in_outputs(seed, values, groups) for seed in range(60)]
    assert sum(compensated for _, compensated in found) < sum(nearest for nearest, _ in found)


def test_inputs_that_do_not_vary_are_rounded_all_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 1e-18 * torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)  # of E[x x^T] - E[x] E[x]^T
    moments = noise + noise.transpose(1, 2)
    moments.diagonal(dim1=1, dim2=2).abs_()
    assert float(torch.linalg.eigvalsh(moments).min()) < 0
    weight, centroids = torch.randn(4, 6, generator=generator), torch.tensor([-1.0, 0.0, 1.0])
    for damping in (0.01, 1.0):
        found = centroids[compensated_indices(weight, moments, centroids, damping)]
        assert float((found - weight).abs().max()) < 5
