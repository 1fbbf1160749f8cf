"""What rounding one layer alone does to the outputs."""

import pytest
import torch
import torch.nn.functional as F
from test_reconstruction import codebooks_of, divergence, images, small
from torch import nn

from requant.clustering import cluster
from requant.reconstruction import reconstruct
from requant.reconstruction.rounding import compensated_indices
from requant.reconstruction.sensitivity import divergences


def test_divergences_are_those_of_layers_rounded_alone() -> None:
    model = small()
    codebooks = codebooks_of(model, 3)
    batches = [images(32, seed=s) for s in (1, 2, 3)]
    found = divergences(model, codebooks, batches, held_out=1)
    assert found.keys() == codebooks.keys()
    for name, value in found.items():
        student, _ = reconstruct(model, {name: codebooks[name]}, batches[:2])
        assert value == pytest.approx(divergence(student, model, batches[2]), rel=0.5, abs=1e-3)


def test_a_divergence_is_that_of_one_layer_rounded_for_the_images_seen_and_shifted_on_those_held_out() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10)).eval()
    nn.init.normal_(model[1].weight, generator=generator)
    batches = [torch.randn(n, 3, 2, 2, generator=generator) + 1 for n in (20, 12, 9, 3)]
    book = cluster(model[1].weight.detach(), 3)
    found = divergences(model, {"1.weight": book}, batches, held_out=2)
    seen, held_out = (torch.cat(part).flatten(1) for part in (batches[:2], batches[2:]))
    weight, centroids = model[1].weight.detach(), torch.from_numpy(book.centroids)
    rounded = centroids[compensated_indices(weight, (seen.T @ seen / len(seen))[None], centroids, 0.01)]
    plain, changed = (held_out @ w.T + model[1].bias.detach() for w in (weight, rounded))
    outputs = (changed + plain.mean(0) - changed.mean(0)).log_softmax(1), plain.log_softmax(1)
    expected = F.kl_div(*outputs, log_target=True, reduction="batchmean")
    assert found == {"1.weight": pytest.approx(float(expected), rel=1e-4)}


def test_measuring_layers_leaves_the_network_as_it_was_and_measures_it_in_use() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(1176, 5))
    books, batches = codebooks_of(model, 3), [images(8, seed=s) for s in range(3)]
    expected = divergences(model.eval(), books, batches, held_out=1)
    assert divergences(model.train(), books, batches, held_out=1) == expected
    assert all(module.training for module in model.modules())
    assert model[1].inplace
