"""Channels turned to where their weights take fewer bits: the function stays where only sums lie between layers."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reconstruction import images
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from requant.archive.fitting import coded_bits
from requant.auto import grids, on_grid
from requant.outputs import SOFTMAX
from requant.reconstruction.graph import layers, trace
from requant.reconstruction.rescaling import fold_statistics
from requant.reconstruction.rotation import sparsest, turn
from requant.reconstruction.streams import Stream, streams


class Narrow(nn.Module):
    """Inverted residuals: wide, an activation, narrow, nothing."""

    def __init__(self, norms: bool = True, bias: bool = False) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
            return nn.Sequential(conv, nn.BatchNorm2d(outputs) if norms else nn.Identity())

        self.stem = layer(3, 24, 3)
        self.first = layer(24, 8)
        self.wide, self.narrow = layer(8, 32, 3), layer(32, 8)
        self.alone = layer(8, 8)
        self.drop = StochasticDepth(0.5, "row")
        self.last = layer(8, 40)
        self.classes = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Two residuals, one of them of a single layer."""
        x = self.first(self.stem(x).relu())
        x = x + self.drop(self.narrow(self.wide(x).relu()))
        x = self.alone(x) + x
        return self.classes(self.last(x).relu().mean((2, 3)))


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.copy_(torch.rand(len(values), generator=generator) + 0.5)
            for values in (module.bias.data, module.running_mean):
                values.copy_(torch.randn(len(values), generator=generator))
    return model.eval()


def made(model: nn.Module, size: int = 16) -> tuple[nn.Module, list[Stream]]:
    """As plan=auto has it, and its streams."""
    found = copy.deepcopy(model)
    fold_statistics(found)
    graph = trace(found, images(1, size))
    return found, streams(found, layers(found, graph))


@pytest.mark.parametrize(("norms", "bias"), [(True, False), (True, True), (False, True), (False, False)])
def test_the_network_computes_what_it_did(norms: bool, bias: bool) -> None:
    torch.manual_seed(0)
    model = with_statistics(Narrow(norms, bias))
    turned, found = made(model)
    (stream,) = found
    assert [layer.weight for layer in stream.writers] == ["first.0.weight", "narrow.0.weight", "alone.0.weight"]
    assert [layer.weight for layer in stream.readers] == ["wide.0.weight", "alone.0.weight", "last.0.weight"]
    turn(turned, found, images(1), SOFTMAX)
    for layer in (*stream.writers, *stream.readers):
        assert not torch.allclose(turned.get_parameter(layer.weight), model.get_parameter(layer.weight), atol=1e-2)
        before, after = model.get_parameter(layer.weight), turned.get_parameter(layer.weight)
        torch.testing.assert_close(after.norm(), before.norm())
    torch.testing.assert_close(turned(images(8)), model(images(8)), rtol=1e-4, atol=1e-4)


def test_weights_take_fewer_bits_in_their_new_directions() -> None:
    """Few that are not near 0, turned at random, are found again; Gaussian ones have no directions of their own."""
    generator = torch.Generator().manual_seed(0)
    sparse = torch.randn(32, 2000, generator=generator) * (torch.rand(32, 2000, generator=generator) < 0.1)
    hidden = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0] @ sparse
    units = sparse.pow(2).mean().sqrt()
    found = sparsest(hidden / units).float() @ hidden
    bits = [coded_bits(on_grid(weight, 0.5 * float(units))) / weight.numel() for weight in (sparse, hidden, found)]
    assert bits[0] < 1
    assert bits[1] > 2.5
    assert bits[2] < bits[0] + 0.02


@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_what_is_found_is_a_rotation_no_worse_than_none(channels: int, values: int, seed: int) -> None:
    weights = torch.randn(channels, values, generator=torch.Generator().manual_seed(seed)) ** 3
    weights /= weights.pow(2).mean().sqrt()
    rotation = sparsest(weights)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(channels, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.equal(rotation, sparsest(weights))

    def cost(of: Tensor) -> float:
        return float((of**2 + 0.64).log().sum())

    assert cost(rotation @ weights.double()) <= cost(weights.double()) + 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_other_types_are_turned_as_well(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = with_statistics(Narrow()).to(dtype)
    turned = grids(model, images(1).to(dtype), images(2).to(dtype).split(1)).base
    assert turned.get_parameter("first.0.weight").dtype == dtype
    changed = not torch.equal(turned.get_parameter("first.0.weight"), model.get_parameter("first.0.weight"))
    assert changed == (dtype == torch.float64)  # what bfloat16 rounds moves outputs by more than a thousandth


def test_nothing_but_zeros_stays_as_it_is() -> None:
    torch.manual_seed(0)
    model = Narrow()
    for name in ("first.0.weight", "narrow.0.weight", "alone.0.weight", "wide.0.weight", "last.0.weight"):
        nn.init.zeros_(model.get_parameter(name))
    turned, found = made(model.eval())
    turn(turned, found, images(1), SOFTMAX)
    assert torch.equal(turned(images(2)), model(images(2)))


class Other(Narrow):
    """Something between the layers that has directions of its own."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        """As before, with it."""
        x = self.between(self.first(self.stem(x).relu()))
        return self.classes(self.last(x).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "between",
    [
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.ConvTranspose2d(8, 8, 1),
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)),
        nn.GroupNorm(2, 8),
        nn.MaxPool2d(2),
        lambda x: x * torch.ones(8, 1, 1),
        lambda x: x + torch.ones(8, 1, 1),
        lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
        lambda x: x + x.relu(),
    ],
)
def test_channels_with_directions_of_their_own_stay(between: Callable[[Tensor], Tensor]) -> None:
    _, found = made(Other(between).eval())
    assert found == []


def assert_stays(model: nn.Module) -> None:
    """There are channels to turn, and no value changes."""
    turned, found = made(model)
    before = {name: values.clone() for name, values in turned.state_dict().items()}
    assert found
    turn(turned, found, images(1), SOFTMAX)
    assert all(torch.equal(values, before[name]) for name, values in turned.state_dict().items())


def test_channels_of_few_weights_stay() -> None:
    """They would save next to nothing, and where steps are finest the longest weights ask for most of them."""
    torch.manual_seed(0)
    model = with_statistics(Narrow())
    model.classes = nn.Linear(40, 10_000)
    assert_stays(model)


def test_what_the_network_gives_stays() -> None:
    class Gives(Narrow):
        def forward(self, x: Tensor) -> Tensor:
            narrow = self.first(self.stem(x).relu())
            return self.classes(self.last(narrow).relu().mean((2, 3))), narrow  # type: ignore[return-value]

    assert made(Gives().eval())[1] == []


def test_a_network_that_turning_would_change_is_left_as_it_was() -> None:
    """Here a weight is used for something else as well."""

    class Twice(Narrow):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.narrow[0].weight[0, 0, 0, 0]

    torch.manual_seed(0)
    model = with_statistics(Twice())
    assert_stays(model)


def test_plans_turn_channels_unless_told_not_to() -> None:
    torch.manual_seed(0)
    model = with_statistics(Narrow())
    kept = copy.deepcopy(model.state_dict())
    turned = grids(model, images(1), images(8).split(1)).base
    same = grids(model, images(1), images(8).split(1), rotate=False).base
    before, one, other = (m.get_parameter("first.0.weight").flatten(1) for m in (model, turned, same))
    assert (torch.cosine_similarity(before, one, dim=1) < 0.99).any()
    torch.testing.assert_close(torch.cosine_similarity(before, other, dim=1), torch.ones(len(before)))
    torch.testing.assert_close(turned(images(8)), same(images(8)), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(values, kept[name]) for name, values in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "narrow"),
    [
        ("mobilenet_v2", [16, 24, 32, 64, 96, 160, 320]),
        ("efficientnet_b0", [16, 24, 40, 80, 112, 192, 320]),
        ("resnet18", []),
    ],
)
def test_which_of_known_networks_are_turned(name: str, narrow: list[int]) -> None:
    model, found = made(getattr(torchvision.models, name)().eval(), 32)
    assert [model.get_parameter(stream.writers[0].weight).shape[0] for stream in found] == narrow
    assert np.all([len(stream.writers) == len(stream.readers) for stream in found])
