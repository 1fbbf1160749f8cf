"""Images changed towards classes: what they keep to, how far they come, and what reconstruction makes of them."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_reconstruction import divergence, images, small
from torch import Tensor, nn

import requant
from requant import compress, compress_to
from requant.errors import UserError
from requant.outputs import SIGMOID, SOFTMAX, VALUES
from requant.reconstruction import reconstruct
from requant.reconstruction.dreams import RATE, STEPS, dreamed
from requant.reconstruction.layerwise import at_places
from requant.retraining.unlabeled import TensorImages


class Scores(nn.Module):
    """A class for each quarter of a grey image: how bright it is."""

    def forward(self, grey: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(grey, 2).flatten(1)


class Dense(nn.Module):
    """A class at each position."""

    def forward(self, grey: Tensor) -> Tensor:
        return torch.cat([grey, -grey], 1)


def grey(count: int, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def test_images_get_likelier_to_be_of_the_classes_drawn() -> None:
    torch.manual_seed(0)
    seen = [nn.Conv2d(3, 32, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model, batches = nn.Sequential(*seen, nn.Linear(32, 10)), list(images(20).split(5))
    found = dreamed(model, batches)
    assert [batch.shape for batch in found] == [batch.shape for batch in batches]
    random = torch.Generator().manual_seed(0)
    wanted = torch.cat([torch.randperm(10, generator=random) for _ in range(2)])
    before, after = (model(torch.cat(part)).log_softmax(1).gather(1, wanted[:, None]) for part in (batches, found))
    assert (after > before).all()


def test_of_four_quarters_the_one_that_is_wanted_gets_brighter() -> None:
    start = grey(8)
    (found,) = dreamed(Scores(), [start], seed=3)
    changes = nn.functional.adaptive_avg_pool2d(found - start, 2).flatten(1)
    assert sorted(changes.argmax(1).tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]  # each class as often


@given(st.integers(1, 12), st.integers(1, 5), st.integers(3, 40), st.integers(0, 9))
def test_pixels_keep_to_the_range_and_move_a_little(count: int, size: int, side: int, seed: int) -> None:
    start = grey(count, side, seed)
    found = torch.cat(dreamed(Scores(), list(start.split(size)), seed=seed))
    assert start.min() <= found.min()
    assert found.max() <= start.max()
    moved = (found - start).square().mean((1, 2, 3)).sqrt()
    assert (moved <= STEPS * RATE * max(float(batch.std()) for batch in start.split(size)) + 1e-5).all()


@pytest.mark.parametrize("outputs", [SOFTMAX, SIGMOID])
def test_it_is_repeatable_and_leaves_the_network_as_it_is(outputs) -> None:  # type: ignore[no-untyped-def]
    model = small().train()
    before = copy.deepcopy(model.state_dict())
    first, second, other = (dreamed(model, [images(6)], outputs, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_may_write_over_its_input() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    start = grey(4) - 0.5
    found, wanted = (dreamed(nn.Sequential(nn.ReLU(inplace=inplace), *layers), [start])[0] for inplace in (True, False))
    assert torch.equal(found, wanted)
    assert torch.equal(start, grey(4) - 0.5)


def test_flat_images_stay() -> None:
    flat = torch.full((2, 1, 16, 16), 0.5)
    assert torch.equal(dreamed(Scores(), [flat])[0], flat)
    assert dreamed(Scores(), []) == []


def test_outputs_that_are_no_classes_of_images_are_refused() -> None:
    with pytest.raises(UserError, match="dreams are of classes"):
        dreamed(Scores(), [grey(2)], VALUES)
    with pytest.raises(UserError, match="dreams are of classes"):
        dreamed(Dense(), [grey(2)])


def test_they_begin_with_the_images_that_come_next() -> None:
    start = grey(10)
    found = at_places(TensorImages(start), range(6, 13), 3)
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert torch.equal(torch.cat(found), start[[6, 7, 8, 9, 0, 1, 2]])
    assert at_places(TensorImages(start), range(6, 6), 3) == []


def test_reconstruction_looks_at_them_too() -> None:
    model, batches = small().eval(), [images(16), images(16, seed=1)]
    rules = [{"kind": "weight", "centroids": 8}]
    books = compress(model, rules, batches[0][:1]).codebooks
    dreams = dreamed(model, [images(16, seed=2)])
    found = reconstruct(model, books, batches, 0.1, dreams=dreams)[0]
    same = reconstruct(model, books, [*batches, *dreams], 0.1)[0]
    without = reconstruct(model, books, batches, 0.1)[0]
    assert divergence(found, same, images(8)) == 0
    assert divergence(found, without, images(8)) > 0


def test_in_one_call() -> None:
    model, size = small().eval(), 2200
    settings = {"size": size, "reconstruct_on": 32, "damping": 0.1}
    plain, found = (compress_to(model, images(64), dreams=dreams, **settings) for dreams in (0, 16))
    assert not torch.equal(plain.model(images(8)), found.model(images(8)))


def test_also_where_clusters_are_reconstructed() -> None:
    model, many = small().eval(), images(48)
    student = compress(model, [{"kind": "weight", "centroids": 8}], many[:1])
    found = requant.reconstruct(model, student, many, count=32, dreams=16, damping=0.1, seed=3)
    more = dreamed(model, [many[32:]], seed=3)
    same, _ = reconstruct(model, student.codebooks, [many[:32]], 0.1, dreams=more)
    assert divergence(found.model, same, images(8)) == 0
