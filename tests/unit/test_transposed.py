"""Transposed convolutions are followed as the convolutions that they are of inputs with zeros between them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from test_outputs import OTHERS, SEEN, distance
from torch import Tensor, nn

from requant import compress, compress_to, load, save
from requant.outputs import VALUES
from requant.reconstruction import reconstruct
from requant.reconstruction.graph import Layer, layers, trace
from requant.reconstruction.moments import sampled_inputs, sampled_outputs
from requant.reconstruction.sampling import places
from requant.reconstruction.sensitivity import divergences

SIDES = st.integers(1, 3)
PAIRS = st.tuples(SIDES, SIDES)


@st.composite
def transposed(draw: st.DrawFn) -> nn.ConvTranspose2d:
    groups, stride, dilation = draw(SIDES), draw(PAIRS), draw(PAIRS)
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    channels = [groups * draw(SIDES) for _ in range(2)]
    torch.manual_seed(draw(st.integers(0, 1000)))
    return nn.ConvTranspose2d(
        *channels, draw(PAIRS), stride, draw(st.tuples(*[st.integers(0, 2)] * 2)), more, groups, True, dilation
    )


def layer_of(module: nn.Module, images: Tensor) -> Layer:
    (found,) = layers(module, trace(module, images)).values()
    return found


@given(transposed(), st.tuples(st.integers(4, 6), st.integers(4, 6)))
@settings(max_examples=60, deadline=None)
def test_rows_times_what_they_see_are_the_outputs(module: nn.ConvTranspose2d, size: tuple[int, int]) -> None:
    images = torch.randn(2, module.in_channels, *size)
    try:
        outputs = module(images).detach()
    except RuntimeError:  # less than no place of the output is left
        reject()
    assume(outputs.numel())
    layer = layer_of(module, images)
    rows = layer.as_rows(module.weight.detach())
    assert torch.equal(layer.as_stored(rows), module.weight)
    every = 10**6
    seen, there = (f(layer, rows, x, every, 0) for f, x in ((sampled_inputs, images), (sampled_outputs, outputs)))
    bias = module.bias.detach().reshape(layer.groups, 1, -1)
    found = seen @ rows.reshape(layer.groups, rows.shape[0] // layer.groups, -1).transpose(1, 2) + bias
    assert torch.allclose(found, there, atol=1e-4)


@pytest.mark.parametrize("period", [2, 3, 4, 6])
def test_sampled_places_are_of_all_kinds(period: int) -> None:
    rows, columns = places(8, 240, 240, 400, 0, period)
    for there in (rows, columns):
        assert len({place % period for place in range(240)[there]}) == period


def network(seed: int = 0) -> nn.Module:
    """Halves the size twice and doubles it twice, as networks of pixels do."""
    torch.manual_seed(seed)
    down = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    up = [nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    up += [nn.ConvTranspose2d(16, 3, 3, 2, 1, output_padding=1)]
    model = nn.Sequential(*down, *up)
    for layer in (model[2], model[5], model[8]):
        nn.init.normal_(layer.weight, std=0.2)
    return model.eval()


def test_layers_and_norms_behind_them_are_found() -> None:
    model = network()
    found = list(layers(model, trace(model, SEEN[:1])).values())
    assert [layer.weight for layer in found] == ["0.weight", "2.weight", "5.weight", "8.weight"]
    assert [layer.norm for layer in found] == [None, "3", "6", None]
    assert [layer.transposed for layer in found] == [False, False, True, True]
    assert found[3].bias == "8.bias"


def test_reconstruction_brings_them_nearer(recwarn: pytest.WarningsRecorder) -> None:
    model = network()
    rules = [{"kind": "weight", "layers": "3-", "centroids": 8}]
    plain = compress(model, rules, SEEN[:1], "kmeans")
    assert set(plain.codebooks) == {"5.weight", "8.weight"}
    student, books = reconstruct(model, plain.codebooks, list(SEEN.split(32)), 0.01)
    assert not [str(warning.message) for warning in recwarn if "leaves" in str(warning.message)]
    assert distance(VALUES, student, model) < 0.5 * distance(VALUES, plain.model, model)
    for name, book in books.items():
        assert book.shape == model.get_parameter(name).shape
        assert torch.equal(student.get_parameter(name), torch.from_numpy(book.dense()))


def test_a_divergence_is_measured_for_each() -> None:
    model = network()
    books = compress(model, [{"kind": "weight", "centroids": 4}], SEEN[:1], "kmeans").codebooks
    found = divergences(model, books, list(SEEN.split(32)), held_out=1, outputs=VALUES)  # type: ignore[arg-type]
    assert set(found) == {"0.weight", "2.weight", "5.weight", "8.weight"}
    assert all(value > 0 for value in found.values())


def test_the_size_is_met_and_a_trellis_leaves_them_out(tmp_path: Path) -> None:
    model, size = network(), 12_000
    found = compress_to(model, SEEN, size=size, damping=0.01, outputs="values")
    kinds = {name: type(book).__name__ for name, book in found.codebooks.items()}
    assert kinds["5.weight"] == kinds["8.weight"] == "Codebook"
    assert kinds["2.weight"] == "TrellisCodebook"
    save(tmp_path / "a", found.model, found.codebooks, storage="entropy")
    assert 0.99 * size <= (tmp_path / "a").stat().st_size <= size
    student = load(tmp_path / "a", network(seed=1))
    rounded = compress_to(model, SEEN, size=size, reconstruct_on=0, outputs="values")
    assert distance(VALUES, student, model) < 0.7 * distance(VALUES, rounded.model, model)


class Sized(nn.Module):
    """Its last layer is told how large its outputs shall be."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 2, 3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.up(self.down(images), output_size=images.shape[2:])
        return found


class Computed(Sized):
    """So is this one's, by a number that is computed anew for each batch."""

    def forward(self, images: Tensor) -> Tensor:
        more = (images.shape[0] * 2 - 1) % 2
        return F.conv_transpose2d(self.down(images), self.up.weight, self.up.bias, 2, 1, (more, 1))


def test_outputs_of_a_size_that_is_asked_for_are_followed_where_it_is_known() -> None:
    model = Sized().eval()
    layer = {layer.weight: layer for layer in layers(model, trace(model, OTHERS[:1])).values()}["up.weight"]
    rows, outputs = layer.as_rows(model.up.weight.detach()), model(OTHERS).detach()
    seen = sampled_inputs(layer, rows, model.down(OTHERS).detach(), 10**6, 0)
    made = seen @ rows.reshape(1, 2, -1).transpose(1, 2) + model.up.bias.detach()
    assert torch.allclose(made, outputs.permute(0, 2, 3, 1).reshape(1, -1, 2), atol=1e-4)
    other = Computed().eval()
    assert torch.equal(other(OTHERS).isfinite().all(), torch.tensor(True))
    assert [layer.weight for layer in layers(other, trace(other, OTHERS[:1])).values()] == ["down.weight"]
