import copy

import numpy as np
import pytest
import torch
from torch import nn

from requant.clustering import cluster, cluster_split
from requant.codebook import Codebook
from requant.codebook_forms import table_of, with_table
from requant.errors import UserError
from requant.parametrization import train_centroids, trained_codebook


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))


def on_codebook(reduction: str = "mean", k: int = 6) -> tuple[nn.Sequential, Codebook, nn.Parameter]:
    model = network()
    codebook = cluster(model[0].weight, k)
    return model, codebook, train_centroids(model, "0.weight", codebook, reduction)  # type: ignore[arg-type]


def test_the_layer_computes_as_if_it_held_the_dense_tensor() -> None:
    model, codebook, centroids = on_codebook()
    images = torch.randn(2, 3, 8, 8)
    dense = network()
    with torch.no_grad():
        dense[0].weight.copy_(torch.from_numpy(codebook.dense()))
    assert torch.equal(model(images), dense(images))
    assert torch.equal(model[0].weight, dense[0].weight)
    assert [p.shape for p in model[0].parameters()] == [(4,), (6,)]
    assert centroids.requires_grad


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_centroids_gradient_is_put_together_from_its_members(reduction: str) -> None:
    model, codebook, centroids = on_codebook(reduction)
    factors = torch.randn(4, 3, 3, 3)
    (model[0].weight * factors).sum().backward()
    for position in range(codebook.k):
        members = factors[torch.from_numpy(codebook.indices == position)].double()
        expected = members.mean() if reduction == "mean" else members.sum()
        assert float(centroids.grad[position]) == pytest.approx(float(expected), rel=1e-6)


def test_gradients_of_members_are_summed_in_double_precision() -> None:
    layer = nn.Linear(3, 1, bias=False)
    centroid = train_centroids(layer, "weight", Codebook(np.float32([1]), np.zeros((1, 3), np.uint8)), "sum")
    (layer.weight * torch.tensor([[1e8, 1.0, -1e8]])).sum().backward()
    assert centroid.grad.tolist() == [1]


def test_a_centroid_without_members_has_no_gradient() -> None:
    layer = nn.Linear(2, 2, bias=False)
    codebook = Codebook(np.float32([-1, 0.5, 1]), np.uint8([[0, 2], [2, 2]]))
    centroids = train_centroids(layer, "weight", codebook)
    layer.weight.square().sum().backward()
    assert centroids.grad.tolist() == [-2, 0, 2]


def test_a_centroid_at_zero_stays_there() -> None:
    layer = nn.Linear(2, 2, bias=False)
    centroids = train_centroids(layer, "weight", Codebook(np.float32([-1, 0]), np.uint8([[0, 1], [1, 1]])))
    layer.weight.sum().backward()
    assert centroids.grad.tolist() == [1, 0]


def test_trained_centroids_come_back_sorted_and_the_layer_plain() -> None:
    model, codebook, centroids = on_codebook()
    with torch.no_grad():
        centroids.copy_(torch.tensor([3.0, -1, 2, 5, 0, 4]))
    dense = model[0].weight.detach().clone()
    trained = trained_codebook(model, "0.weight")
    assert trained.centroids.tolist() == [-1, 0, 2, 3, 4, 5]
    assert torch.equal(torch.from_numpy(trained.dense()), dense)
    assert (trained.counts == codebook.counts[[1, 4, 2, 0, 5, 3]]).all()
    assert isinstance(model[0].weight, nn.Parameter)
    assert torch.equal(model[0].weight, dense)
    assert set(model.state_dict()) == set(network().state_dict())


def test_untrained_centroids_make_the_same_codebook() -> None:
    model, codebook, _ = on_codebook()
    same = trained_codebook(model, "0.weight")
    assert (same.centroids == codebook.centroids).all()
    assert (same.indices == codebook.indices).all()


def test_training_lessens_the_loss_and_keeps_every_cluster_together() -> None:
    model, codebook, centroids = on_codebook("sum", k=3)
    images = torch.randn(8, 3, 8, 8)
    wanted = network()(images).detach()
    optimizer = torch.optim.SGD([centroids], 1e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(images) - wanted).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert (trained_codebook(model, "0.weight").indices == codebook.indices).all()


def test_a_state_dict_with_trained_centroids_fits_a_copy() -> None:
    model, _, centroids = on_codebook()
    other = copy.deepcopy(model)
    with torch.no_grad():
        centroids += 1
    other.load_state_dict(model.state_dict())
    assert torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [("0.scale", "no parameter"), ("7.weight", "has no 7"), ("3.weight", "has shape"), ("0.weight", "already")],
)
def test_what_does_not_fit_is_named(name: str, message: str) -> None:
    model, codebook, _ = on_codebook()
    with pytest.raises(UserError, match=message):
        train_centroids(model, name, codebook)


def test_centroids_that_diverged_and_layers_on_no_codebook_are_refused() -> None:
    model, _, centroids = on_codebook()
    with torch.no_grad():
        centroids[0] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        trained_codebook(model, "0.weight")
    with pytest.raises(UserError, match="train_centroids first"):
        trained_codebook(model, "3.weight")


FORMS = {"channel": {"granularity": "channel"}, "channel_scale": {"granularity": "channel_scale"}, "product": {}}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_centroids_of_groups_and_vectors_train_as_well(form: str, reduction: str) -> None:
    model = network()
    codebook = cluster(model[0].weight, 5, "product" if form == "product" else "kmeans", **FORMS[form])
    table = train_centroids(model, "0.weight", codebook, reduction)  # type: ignore[arg-type]
    assert torch.equal(model[0].weight, torch.from_numpy(codebook.dense()))
    factors = torch.randn(4, 3, 3, 3)
    (model[0].weight * factors).sum().backward()
    expected = by_differences(codebook, factors)
    if reduction == "mean":
        members = by_differences(codebook, torch.ones_like(factors), count=True)
        expected = expected / members.clamp_min(1)
    assert torch.allclose(table.grad.double(), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        table += 0.1 * torch.randn(table.shape)
    dense = model[0].weight.detach().clone()
    trained = trained_codebook(model, "0.weight")
    assert type(trained) is type(codebook)
    assert torch.equal(torch.from_numpy(trained.dense()), dense)


def by_differences(codebook, factors: torch.Tensor, count: bool = False) -> torch.Tensor:
    """The gradient of (dense x factors).sum() to each number of the table, by changing it; or how many follow it."""
    table, found = table_of(codebook), []
    for position in np.ndindex(table.shape):
        changed = table.copy()
        changed[position] += 1
        step = torch.from_numpy(with_table(codebook, changed).dense() - codebook.dense()).double()
        found.append(step.ne(0).sum().double() if count else (step * factors.double()).sum())
    return torch.stack(found).reshape(table.shape)


def test_split_channels_are_not_trained() -> None:
    model = network()
    codebook = cluster_split(model[0].weight, 4, "kmeans", 0.3, name="w")
    with pytest.raises(UserError, match="cluster it without split"):
        train_centroids(model, "0.weight", codebook)
