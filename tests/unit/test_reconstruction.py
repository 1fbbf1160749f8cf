"""Reconstruction, part by part."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from requant.archive import load, save
from requant.clustering import cluster
from requant.codebook import Codebook
from requant.compression import check_placed, compress, place
from requant.errors import UserError
from requant.models import Architecture, build
from requant.reconstruction import batches_of, best_damping, layerwise, reconstruct
from requant.reconstruction.graph import Layer, Walk, batches_that_fit, layers, side_by_side, trace
from requant.reconstruction.layerwise import DAMPINGS
from requant.reconstruction.rounding import compensated_indices
from requant.reconstruction.sensitivity import divergences
from requant.retraining.unlabeled import TensorImages

ARCHITECTURES = {
    "vgg": Architecture("vgg16_cifar", classes=10, image_size=32, width=0.125),
    "resnet": Architecture("resnet50_cifar_s2", classes=10, image_size=32, width=0.125),
}


class Small(nn.Module):
    """Every kind of layer that is followed: strided, grouped, dilated, depthwise, with and without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.stem(images)))
        hidden = hidden + F.relu(self.norm2(self.depthwise(hidden)), inplace=True)
        return self.fc(F.relu(self.grouped(hidden)).mean((2, 3)))


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = Small()
    for norm in (model.norm, model.norm2):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 2.0)
    return model.eval()


def images(count: int, size: int = 16, seed: int = 1) -> Tensor:
    """Smooth, so that neighbouring pixels are alike, as in photographs."""
    noise = torch.randn(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, scale_factor=4, mode="bilinear")


def divergence(student: nn.Module, teacher: nn.Module, batch: Tensor) -> float:
    with torch.no_grad():
        outputs = student(batch).log_softmax(1), teacher(batch).log_softmax(1)
    return float(F.kl_div(*outputs, log_target=True, reduction="batchmean"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_walk_computes_what_the_network_computes(name: str) -> None:
    model = build(ARCHITECTURES[name]).eval()
    batches = [images(2, 32), images(3, 32, seed=2)]
    graph = trace(model)
    walks = Walk(model, graph, batches), Walk(model, graph, batches)
    for node in side_by_side(*walks, [], batches_that_fit(model, graph, batches[0], 1 << 30)):
        walks[1].compute(node)
    last = list(graph.nodes)[-1]
    for walk in walks:
        assert len(walk.values) == 1  # all else is forgotten
        for batch, found in zip(batches, walk.values[last], strict=True):
            assert torch.equal(found, model(batch))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_join_where_there_is_room_for_them(name: str) -> None:
    model = build(ARCHITECTURES[name]).eval()
    batches = [images(2, 32, seed=seed) for seed in range(5)]
    graph = trace(model)
    whole = Walk(model, graph, batches[:1])
    most = 0
    for node in graph.nodes:
        whole.compute(node)
        most = max(most, whole.live_bytes())
        whole.forget(node)
    room = batches_that_fit(model, graph, batches[0], 4 * most)
    assert min(room.values()) == 2
    assert max(room.values()) > 5
    walks = Walk(model, graph, batches[:2]), Walk(model, graph, batches[:2])
    held = []
    for node in side_by_side(*walks, batches[2:], room):
        walks[1].compute(node)
        held.append(sum(walk.live_bytes() for walk in walks))
    assert max(held) <= 4 * most
    last = list(graph.nodes)[-1]
    for walk in walks:
        for batch, found in zip(batches, walk.values[last], strict=True):
            assert torch.equal(found, model(batch))


def test_layers_are_found_with_their_geometry_and_norms() -> None:
    model = small()
    found = {layer.weight: layer for layer in layers(model, trace(model)).values()}
    assert found == {
        "stem.weight": Layer("stem.weight", None, "norm", (2, 2), ((1, 1), (1, 1)), (1, 1), 1, True),
        "depthwise.weight": Layer("depthwise.weight", None, "norm2", (1, 1), ((2, 2), (2, 2)), (2, 2), 8, True),
        "grouped.weight": Layer("grouped.weight", "grouped.bias", None, (1, 1), ((0, 0), (0, 0)), (1, 1), 2, True),
        "fc.weight": Layer("fc.weight", "fc.bias", None),
    }


def test_a_layer_that_is_called_twice_is_left_out() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once, self.shared = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, values: Tensor) -> Tensor:
            return self.shared(self.shared(self.once(values)))

    model = Twice()
    assert [layer.weight for layer in layers(model, trace(model)).values()] == ["once.weight"]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (4, 3), ((2, 3), (1, 2))])
def test_even_kernels_are_padded_as_pytorch_does(kernel: Any, dilation: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, kernel, padding="same", dilation=dilation), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 10)
    )
    batches = [images(8, seed=s) for s in range(3)]
    books = {"0.weight": cluster(model[0].weight.detach().numpy(), 6, "kmeans")}
    rounded = copy.deepcopy(model)
    place(rounded, books)
    student, _ = reconstruct(model, books, batches, 0.01)
    assert divergence(student, model, batches[0]) < divergence(rounded, model, batches[0])


@pytest.mark.parametrize(
    ("kernel", "dilation", "expected"),
    [(2, 1, ((0, 1), (0, 1))), (4, 3, ((4, 5), (4, 5))), ((2, 3), (1, 2), ((0, 1), (2, 2)))],
)
def test_what_is_odd_of_a_padding_comes_at_the_end(kernel: Any, dilation: Any, expected: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, kernel, padding="same", dilation=dilation))
    assert [layer.padding for layer in layers(model, trace(model)).values()] == [expected]


def test_networks_that_write_over_their_images_are_reconstructed_as_those_that_do_not() -> None:
    class Scaled(nn.Module):
        def __init__(self, over: bool) -> None:
            super().__init__()
            self.inner, self.over = small(), over

        def forward(self, batch: Tensor) -> Tensor:
            return self.inner(batch.mul_(2).sub_(0.5) if self.over else batch * 2 - 0.5)

    batches, made = [images(8, seed=s) for s in range(3)], []
    for over in (True, False):
        model = Scaled(over)
        books = {"inner.stem.weight": cluster(model.inner.stem.weight.detach().numpy(), 4, "kmeans")}
        made.append(reconstruct(model, books, batches, 0.01)[0].state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert torch.equal(batches[0], images(8, seed=0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_element_types_are_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype).eval()
    batches = [torch.randn(16, 3, 4, 4, dtype=dtype) for _ in range(3)]
    found = compress(model, [{"kind": "weight", "centroids": 8}], batches[0][:1])
    student, books = reconstruct(model, found.codebooks, batches, 0.1)
    save(tmp_path / "a.h5", student, books)
    back = load(tmp_path / "a.h5", copy.deepcopy(model))
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in student.state_dict().items())
    assert student[1].weight.dtype == dtype


def test_a_student_without_numbers_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([0.5, float("nan"), 0.3, 0.4])
    monkeypatch.setattr(layerwise, "mean_divergence", lambda *_: next(found))
    batches = [images(8, seed=s) for s in range(4)]
    books = {"fc.weight": cluster(small().fc.weight.detach().numpy(), 4, "kmeans")}
    assert best_damping(small(), books, batches) == layerwise.DAMPINGS[1]


def test_nearer_clusters_are_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = iter([0.1, 0.5, 0.3, 0.4])
    monkeypatch.setattr(layerwise, "mean_divergence", lambda *_: next(found))
    books = {"fc.weight": cluster(small().fc.weight.detach().numpy(), 4, "kmeans")}
    best_damping(small(), books, [images(8, seed=s) for s in range(4)])
    assert "The clusters as they are were nearer" in capsys.readouterr().out


class Named(nn.Module):
    """Outputs by name."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.inner, self.key = small(), key

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        found = self.inner(batch)
        return {"other": found.sum(), self.key: found}


def test_outputs_by_a_name_that_nobody_knows_are_refused() -> None:
    books = {"inner.fc.weight": cluster(small().fc.weight.detach().numpy(), 4, "kmeans")}
    with pytest.raises(UserError, match=r"Named gives a dict for 8 images, .* wrap it"):
        reconstruct(Named("scores"), books, [images(8), images(8)])


@pytest.mark.parametrize("key", ["out", "logits"])
def test_outputs_by_name_are_those_that_count(key: str) -> None:
    book = cluster(small().fc.weight.detach().numpy(), 4, "kmeans")
    batches = [images(8, seed=s) for s in range(4)]
    found, _ = reconstruct(Named(key), {"inner.fc.weight": book}, batches)
    wanted, _ = reconstruct(small(), {"fc.weight": book}, batches)
    assert torch.equal(found(batches[0])[key], wanted(batches[0]))


def codebooks_of(model: nn.Module, k: int) -> dict[str, Codebook]:
    return {name: cluster(p.detach(), k, name=name) for name, p in model.named_parameters() if p.ndim > 1}


def test_reconstruction_comes_closer_than_clustering() -> None:
    model = small()
    before = copy.deepcopy(model.state_dict())
    plain = compress(model, [{"kind": "weight", "centroids": 4}], torch.zeros(1, 3, 16, 16))
    student, codebooks = reconstruct(model, plain.codebooks, [images(32, seed=s) for s in (1, 2)])
    held_out = images(64, seed=9)
    assert divergence(student, model, held_out) < 0.5 * divergence(plain.model, model, held_out)
    check_placed(student, codebooks)
    for name, book in codebooks.items():
        assert np.array_equal(book.centroids, plain.codebooks[name].centroids)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    again, same = reconstruct(model, plain.codebooks, [images(32, seed=s) for s in (1, 2)])
    assert all(
        torch.equal(a, b) for a, b in zip(student.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert all(np.array_equal(codebooks[name].indices, same[name].indices) for name in same)


def test_a_norms_outputs_get_the_teachers_means_and_part_of_the_way_to_its_gain() -> None:
    """Deviations are the teacher's over r^0.4, r the correlation with it."""
    model, batches = small(), [images(16, seed=s) for s in (1, 2)]
    books = {"stem.weight": cluster(model.stem.weight.detach(), 3)}
    student, _ = reconstruct(model, books, batches, 0.1)
    found, wanted = (norm_outputs(network, torch.cat(batches)) for network in (student, model))
    assert torch.allclose(found.mean(1), wanted.mean(1), atol=1e-4)
    for channel in range(8):
        r = float(torch.corrcoef(torch.stack([found[channel], wanted[channel]]))[0, 1])
        assert 0.3 < r < 1
        assert float(found[channel].std() / wanted[channel].std()) == pytest.approx(r**-0.4, rel=1e-3)


def norm_outputs(model: nn.Module, batch: Tensor) -> Tensor:
    """(C, ...) what the first batch norm gives."""
    found: list[Tensor] = []
    handle = model.norm.register_forward_hook(lambda *call: found.append(call[2].detach().double().clone()))
    model(batch)
    handle.remove()
    return found[0].transpose(0, 1).flatten(1)


def test_what_has_a_codebook_and_is_no_layers_weight_stands_still() -> None:
    model = small()
    codebooks = codebooks_of(model, 4)
    for name in ("norm.weight", "fc.bias"):
        codebooks[name] = cluster(model.get_parameter(name).detach(), 1, name=name)
    student, found = reconstruct(model, codebooks, [images(16)])
    check_placed(student, found)
    assert found["fc.bias"] is codebooks["fc.bias"]
    assert torch.equal(student.norm.bias, model.norm.bias)  # its scale may not follow
    assert not torch.equal(student.norm2.bias, model.norm2.bias)


def test_weights_that_no_layer_uses_as_they_are_stay_and_that_is_said() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

        def forward(self, batch: Tensor) -> Tensor:
            weight = self.conv.weight
            weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)
            return self.fc(F.conv2d(batch, weight, self.conv.bias).relu().mean((2, 3)))

    torch.manual_seed(0)
    model = Scaled().eval()
    books = compress(model, [{"kind": "weight", "centroids": 4}], images(1)).codebooks
    with pytest.warns(UserWarning, match=r"leaves 1 of 2 clustered weights, 73.0% of their values, .* \(conv.weight\)"):
        _, found = reconstruct(model, books, [images(16)], 0.1)
    assert np.array_equal(found["conv.weight"].indices, books["conv.weight"].indices)
    reconstruct(model, {"fc.weight": books["fc.weight"]}, [images(16)], 0.1)


def test_means_count_where_the_batch_norm_behind_has_codebooks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    batch = images(64, 8) + 2  # of one sign mostly, so that errors of weights move the means
    rules = [{"name": "^0", "centroids": 8}, {"kind": "bn_beta", "centroids": 1}]
    books = compress(model.eval(), rules, batch[:1]).codebooks
    student, _ = reconstruct(model, books, [batch], 0.01)
    with torch.no_grad():
        wanted, found = model[0](batch), student[0](batch)
    lacking = (wanted - found).mean((0, 2, 3)) / wanted.std((0, 2, 3))
    assert float(lacking.square().mean().sqrt()) < 0.1


def test_linear_layers_on_tokens_are_followed() -> None:
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.mix, self.fc = nn.Conv2d(3, 12, 4, stride=4), nn.Linear(12, 20), nn.Linear(20, 10)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patches(images).flatten(2).transpose(1, 2)  # (N, 16, 12)
            return self.fc(F.relu(self.mix(tokens)).mean(1))

    model = Tokens().eval()
    codebooks, batches = codebooks_of(model, 4), [images(32, seed=s) for s in (1, 2, 3)]
    plain = compress(model, [{"kind": "weight", "centroids": 4}], torch.zeros(1, 3, 16, 16)).model
    student, _ = reconstruct(model, codebooks, batches[:2])
    assert divergence(student, model, batches[2]) < divergence(plain, model, batches[2])
    assert divergences(model, codebooks, batches, held_out=1).keys() == codebooks.keys()


def test_reconstruction_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="one batch at least"):
        reconstruct(small(), {}, [])


def test_compensated_errors_are_much_smaller_where_inputs_are_alike() -> None:
    rows = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0)) + 3 * torch.ones(1, 64)
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    centroids = torch.linspace(-3, 3, 9)
    nearest = (weight[..., None] - centroids).abs().argmin(-1)
    found = compensated_indices(weight, (rows.T @ rows / 2000)[None], centroids, 0.01)
    error, plain = (float(((centroids[i] - weight) @ rows.T).square().sum()) for i in (found, nearest))
    assert error < 0.2 * plain


def test_batches_hold_the_first_images_in_order() -> None:
    stack = torch.arange(10.0).reshape(10, 1, 1, 1)
    found = batches_of(TensorImages(stack), 7, 3)
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert torch.equal(torch.cat(found), stack[:7])
    assert len(torch.cat(batches_of(TensorImages(stack), 99, 4))) == 10


def test_the_damping_is_the_one_that_suits_images_held_out() -> None:
    model = small()
    with torch.no_grad():
        model.fc.weight.mul_(20)
    books = compress(model, [{"kind": "weight", "centroids": 4}], images(1)).codebooks
    batches = [images(16, seed=seed) for seed in range(4)]
    best = best_damping(model, books, batches)
    found = {d: divergence(reconstruct(model, books, batches[:3], d)[0], model, batches[3]) for d in DAMPINGS}
    assert best == min(found, key=found.__getitem__)
    chosen, given = reconstruct(model, books, batches), reconstruct(model, books, batches, best)
    assert all((chosen[1][name].indices == given[1][name].indices).all() for name in books)
    assert best_damping(model, books, batches[:1]) == max(DAMPINGS)


def test_the_damping_is_chosen_on_three_quarters_of_the_first_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = small(), []
    books = {"fc.weight": cluster(model.fc.weight.detach(), 4)}
    original = layerwise.reconstruct

    def watched(network: nn.Module, codebooks: Any, given: list[Tensor], damping: float) -> Any:
        seen.append(given)
        return original(network, codebooks, given, damping)

    monkeypatch.setattr(layerwise, "reconstruct", watched)
    monkeypatch.setattr(layerwise, "MOST_TRIED", 64)
    batches = [images(8, seed=s) for s in range(8)]
    best = best_damping(model, books, [*batches, torch.zeros(8, 2, 1, 1)])  # the last would not pass the network
    assert [len(given) for given in seen] == [6] * len(DAMPINGS)
    assert best == best_damping(model, books, batches)
