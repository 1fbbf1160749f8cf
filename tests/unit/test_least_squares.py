"""What is not quantized makes up for what is."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from requant.compression import check_placed, compress
from requant.models import Architecture, build
from requant.reconstruction import layerwise, reconstruct
from requant.reconstruction.graph import Layer
from requant.reconstruction.least_squares import solved
from requant.reconstruction.moments import joint_moments

AROUND = ((1, 1), (1, 1))
GEOMETRIES = {
    "linear": (Layer("w", "b", None), (6, 4), (200, 4)),
    "tokens": (Layer("w", "b", None), (6, 4), (20, 10, 4)),
    "convolution": (
        Layer("w", "b", None, (2, 1), AROUND, (1, 2), convolves=True),
        (5, 3, 3, 2),
        (8, 3, 11, 9),
    ),
    "groups": (Layer("w", "b", None, groups=3, padding=AROUND, convolves=True), (6, 2, 3, 3), (8, 6, 8, 8)),
    "depthwise": (Layer("w", "b", None, groups=4, convolves=True), (4, 1, 3, 3), (8, 4, 8, 8)),
    "sampled": (Layer("w", "b", None, convolves=True), (4, 2, 1, 1), (40, 2, 64, 64)),
}


def outputs(layer: Layer, weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    if weight.ndim == 2:
        return F.linear(inputs, weight, bias)
    height, width = layer.padding
    return F.conv2d(F.pad(inputs, (*width, *height)), weight, bias, layer.stride, 0, layer.dilation, layer.groups)


def made(
    layer: Layer,
    weight: Tensor,
    bias: Tensor | None,
    inputs: list[Tensor],
    wanted: list[Tensor],
    damping: float,
    centred: bool,
) -> Tensor:
    return solved(weight, joint_moments(layer, weight, bias, inputs, wanted, centred), damping)


def drawn(name: str, seed: int) -> tuple[Layer, Tensor, Tensor, Tensor, list[Tensor]]:
    """A layer, two weights, a bias, and two batches of inputs."""
    layer, weight, inputs = GEOMETRIES[name]
    random = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(weight, generator=random) for _ in range(2))
    bias = torch.randn(weight[0], generator=random)
    return layer, first, second, bias, [torch.randn(inputs, generator=random) + 0.5 for _ in range(2)]


@pytest.mark.parametrize("name", GEOMETRIES)
@given(seed=st.integers(0, 1000))
def test_the_weights_that_made_the_outputs_are_found(name: str, seed: int) -> None:
    layer, weight, true, bias, inputs = drawn(name, seed)
    wanted = [outputs(layer, true, bias, x) for x in inputs]
    found = made(layer, weight, bias, inputs, wanted, 1e-9, False)
    assert torch.allclose(found, true, atol=1e-3)
    without = made(layer, weight, None, inputs, [outputs(layer, true, None, x) for x in inputs], 1e-9, False)
    assert torch.allclose(without, true, atol=1e-3)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_mean_that_is_set_later_does_not_bend_the_weights(name: str) -> None:
    layer, weight, true, bias, inputs = drawn(name, 0)
    wanted = [outputs(layer, true, bias + 3, x) for x in inputs]
    found = made(layer, weight, bias, inputs, wanted, 1e-9, True)
    assert torch.allclose(found, true, atol=1e-3)
    assert not torch.allclose(made(layer, weight, bias, inputs, wanted, 1e-9, False), true, atol=0.1)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_error_is_least_and_damping_holds_the_weights(name: str) -> None:
    layer, weight, true, bias, inputs = drawn(name, 1)
    wanted = [F.relu(outputs(layer, true, bias, x)) for x in inputs]
    random = torch.Generator().manual_seed(2)

    def error(candidate: Tensor) -> float:
        pairs = zip(inputs, wanted, strict=True)
        return sum(float((outputs(layer, candidate, bias, x) - y).square().sum()) for x, y in pairs)

    if name != "sampled":
        found = made(layer, weight, bias, inputs, wanted, 1e-9, False)
        for _ in range(20):
            assert error(found) < error(found + 0.01 * torch.randn(found.shape, generator=random))
    dampings = (1e-3, 1e-1, 1e1, 1e6)
    distances = [(made(layer, weight, bias, inputs, wanted, d, False) - weight).norm() for d in dampings]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-3


def test_where_nothing_comes_in_nothing_changes() -> None:
    layer, weight, _, bias, inputs = drawn("convolution", 0)
    dark = [torch.zeros_like(x) for x in inputs]
    wanted = [outputs(layer, weight, bias + 1, x) for x in dark]
    assert torch.equal(made(layer, weight, bias, dark, wanted, 0.01, False), weight)


def images(count: int, seed: int) -> Tensor:
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, scale_factor=4, mode="bilinear")


def divergence(student: nn.Module, teacher: nn.Module, batch: Tensor) -> float:
    with torch.no_grad():
        pair = student(batch).log_softmax(1), teacher(batch).log_softmax(1)
    return float(F.kl_div(*pair, log_target=True, reduction="batchmean"))


def biased_vgg() -> nn.Module:
    torch.manual_seed(0)
    model = build(Architecture("vgg16_cifar", classes=10, image_size=32, width=0.125)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.05)
    return model


def test_free_weights_make_up_for_biases_at_one_centroid() -> None:
    """The paper's plan for VGG-16: the weights of the two large layers, and all biases at one centroid."""
    model = biased_vgg()
    rules = [{"layers": "14-15", "kind": "weight", "centroids": 32}, {"kind": "bias", "centroids": 1}]
    plain = compress(model, rules, torch.zeros(1, 3, 32, 32), "equal_population")
    student, codebooks = reconstruct(model, plain.codebooks, [images(64, seed) for seed in range(4)])
    check_placed(student, codebooks)
    held_out = images(64, 9)
    assert divergence(student, model, held_out) < 0.2 * divergence(plain.model, model, held_out)


def test_a_first_layer_makes_up_for_its_own_bias_at_one_centroid() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6)).eval()
    nn.init.normal_(model[1].bias)
    batches = [torch.randn(50, 3, 2, 2) + 2 for _ in range(2)]
    plain = compress(model, [{"kind": "bias", "centroids": 1}], batches[0][:1])
    student, codebooks = reconstruct(model, plain.codebooks, batches, 1e-3)
    check_placed(student, codebooks)
    with torch.no_grad():
        wanted, made, left = (net(torch.cat(batches)) for net in (model, student, plain.model))
    assert float((made - wanted).norm()) < 0.5 * float((left - wanted).norm())


def test_what_lies_before_the_first_quantized_layer_stays() -> None:
    model = biased_vgg()
    plain = compress(model, [{"layers": "14-15", "kind": "weight", "centroids": 2}], torch.zeros(1, 3, 32, 32))
    student, _ = reconstruct(model, plain.codebooks, [images(64, seed) for seed in range(2)])
    before, after = copy.deepcopy(model).state_dict(), student.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == [f"classifier.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]


def test_solving_before_rounding_comes_nearer_than_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches, held_out = biased_vgg(), [images(64, seed) for seed in range(4)], images(64, 9)
    plain = compress(model, [{"kind": "weight", "centroids": 4}], torch.zeros(1, 3, 32, 32))
    student, codebooks = reconstruct(model, plain.codebooks, batches, damping=0.1)
    check_placed(student, codebooks)
    monkeypatch.setattr(layerwise, "solved", lambda weight, moments, damping: weight)
    rounded, _ = reconstruct(model, plain.codebooks, batches, damping=0.1)
    assert divergence(student, model, held_out) < 0.9 * divergence(rounded, model, held_out)
