"""The fast study gives what the plain way gives, to the image; a killed one goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from requant import archive
from requant.compression import compress
from requant.errors import PlanError, UserError
from requant.evaluation import evaluate
from requant.kinds import KINDS
from requant.layers import describe
from requant.models import Architecture, build, example_input
from requant.sensitivity import Point, Study, Table, grid, measure_all
from requant.sensitivity.chain import as_chain, holders

NETWORKS = {
    "vgg_small": Architecture("vgg_small", 10, 1, 16, 0.5),
    "resnet50_cifar_s2": Architecture("resnet50_cifar_s2", 10, 3, 16, 1 / 16),
}


def network(name: str) -> nn.Module:
    """With batch norms that do something: scales, shifts and statistics of their own."""
    torch.manual_seed(0)
    model = build(NETWORKS[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data = torch.rand_like(tensor) + 0.5
        elif isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.data = 0.1 * torch.randn_like(module.bias)
    return model.to(memory_format=torch.channels_last)


def batches(name: str, images: int = 48) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    _, *shape = example_input(NETWORKS[name]).shape
    pixels = torch.randn(images, *shape, generator=generator)
    return list(zip(pixels.split(20), torch.randint(10, (images,), generator=generator).split(20), strict=True))


def study(name: str, storage: str = "packed") -> Study:
    return Study(
        network(name), example_input(NETWORKS[name]), batches(name), method="equal_population", storage=storage
    )


def plain(name: str, point: Point, path: Path) -> tuple[int, int, float | None]:
    """Bytes, correct and agreement by compressing, storing, loading and evaluating the whole network."""
    teacher = network(name)
    rule = {"kind": point.kind, "layers": point.layers, "centroids": point.centroids}
    found = compress(teacher, [rule], example_input(NETWORKS[name]), "equal_population")
    size = archive.save(path, found.model, found.codebooks).bytes
    loaded = archive.load(path, model=network(name))
    accuracy = evaluate(loaded, batches(name), teacher)
    return size, accuracy.correct, accuracy.agreement


@pytest.mark.filterwarnings("ignore:.*distinct values.*")
@pytest.mark.parametrize(
    ("name", "layers"), [("vgg_small", ["each", "2-3"]), ("resnet50_cifar_s2", ["1", "13-49", "24", "50"])]
)
def test_every_point_is_what_the_whole_network_gives(name: str, layers: list[str], tmp_path: Path) -> None:
    fast = study(name)
    points = grid(fast.tensors, ["weight"], layers, [4])
    found = list(fast.measure(points))
    assert {measured.point for measured in found} == set(points)
    for measured in found:
        accuracy = measured.accuracy
        expected = plain(name, measured.point, tmp_path / "plain.h5")
        assert (measured.bytes, accuracy.correct, accuracy.agreement) == expected, measured.point


@given(kind=st.sampled_from(KINDS), layer=st.integers(1, 49), k=st.sampled_from([1, 2, 8, 256]))
@settings(max_examples=6, deadline=None)
@pytest.mark.filterwarnings("ignore:.*distinct values.*")
def test_any_kind_in_any_layer(kind: str, layer: int, k: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    fast = study("resnet50_cifar_s2")
    point = Point(kind, "50" if kind == "bias" else str(layer), k)
    (measured,) = fast.measure([point])
    path = tmp_path_factory.mktemp("plain") / "plain.h5"
    accuracy = measured.accuracy
    expected = plain("resnet50_cifar_s2", point, path)
    assert (measured.bytes, accuracy.correct, accuracy.agreement) == expected


def test_the_teacher_is_left_as_it_was() -> None:
    teacher = network("vgg_small")
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    fast = Study(teacher, example_input(NETWORKS["vgg_small"]), batches("vgg_small"), method="linear", storage="packed")
    list(fast.measure(grid(fast.tensors, ["weight"], ["each"], [2])))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert any(getattr(module, "inplace", False) for module in teacher.modules())


def test_a_teacher_in_training_mode_is_measured_in_evaluation_mode_and_left_as_it_was() -> None:
    name = "resnet50_cifar_s2"
    teacher = network(name).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    found = Study(teacher, example_input(NETWORKS[name]), batches(name), method="linear", storage="packed")
    assert found.teacher == study(name).teacher
    assert teacher.training
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_a_chain_is_cut_before_layers_and_between_blocks() -> None:
    vgg, resnet = network("vgg_small"), network("resnet50_cifar_s2")
    for model, name, pieces in ((vgg, "vgg_small", 9), (resnet, "resnet50_cifar_s2", 18)):
        layers = {
            t.name.rpartition(".")[0] for t in describe(model, example_input(NETWORKS[name])) if t.kind == "weight"
        }
        chain = as_chain(model, layers)
        assert len(chain) == pieces
        ((images, _), *_) = batches(name)
        x = images
        with torch.inference_mode():
            for piece in chain:
                x = piece(x)
            assert torch.equal(x, model(images))


def test_a_transformer_is_cut_between_its_blocks() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 3, 2, 32, 64, num_classes=10).eval()
    chain = as_chain(model, {f"encoder.layers.encoder_layer_{block}.mlp.0" for block in range(3)})
    found = images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for piece in chain:
            found = piece(found)
        assert torch.equal(found, model(images))
    assert len(chain) == 4
    assert set(holders(chain, model)) == set(model.state_dict())


class Branching(nn.Module):
    """What torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 14 * 14, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc((x.relu() if x.sum() > 0 else -x).flatten(1))


def test_a_network_that_cannot_be_cut_is_measured_whole() -> None:
    with pytest.warns(UserWarning, match="cannot be cut"):
        fast = Study(Branching(), torch.zeros(1, 1, 16, 16), batches("vgg_small"), method="linear", storage="packed")
    found = list(fast.measure(grid(fast.tensors, ["weight"], ["each"], [2, 8])))
    assert [measured.point.layers for measured in found] == ["1", "1", "2", "2"]


class Overwriting(nn.Module):
    """Its block changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = nn.functional.relu(x, inplace=True)
        return (self.second(y)[:, :, :5, :5] + x[:, :, :5, :5]).flatten(1)


def test_steps_that_work_in_place_leave_a_piece_its_input() -> None:
    model = Overwriting().eval()
    chain = as_chain(model, {"first", "second"})
    assert len(chain) == 2
    with torch.no_grad():
        passed = chain[0](torch.randn(2, 1, 16, 16))
        before = passed.clone()
        chain[1](passed)
    assert torch.equal(passed, before)
    fast = Study(model, torch.zeros(1, 1, 16, 16), batches("vgg_small"), method="linear", storage="packed")
    whole = evaluate(model, batches("vgg_small"), model)
    assert fast.teacher.correct == whole.correct


def test_a_network_that_overwrites_its_own_inputs_is_refused() -> None:
    class Clips(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp_(min=0)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.clips, self.second = nn.Conv2d(1, 4, 3), Clips(), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return (self.second(self.clips(x))[:, :, :5, :5] + x[:, :, :5, :5]).flatten(1)

    with pytest.raises(UserError, match="not in place"):
        Study(Network(), torch.zeros(1, 1, 16, 16), batches("vgg_small"), method="linear", storage="packed")


def test_a_network_that_gives_something_else_each_time_is_refused() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(256, 10)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(self.fc(x.flatten(1)), training=True)

    with pytest.raises(UserError, match="something else each time"):
        Study(Noisy().eval(), torch.zeros(1, 1, 16, 16), batches("vgg_small"), method="linear", storage="packed")


def test_points_are_clustered_as_asked_for_and_the_original_counts_four_bytes_a_value(tmp_path: Path) -> None:
    name, settings = "vgg_small", {"granularity": "channel", "split": 0.1}
    example = example_input(NETWORKS[name])
    fast = Study(network(name), example, batches(name), method="kmeans", storage="packed", clustering=settings)
    assert fast.original_bytes == 4 * sum(parameter.numel() for parameter in network(name).parameters())
    found = {
        measured.point.centroids: measured for measured in fast.measure(grid(fast.tensors, ["weight"], ["4"], [2, 5]))
    }
    for k, measured in found.items():
        rule = {"kind": "weight", "layers": "4", "centroids": k}
        plain = compress(network(name), [rule], example, "kmeans", **settings)
        assert measured.bytes == archive.save(tmp_path / "plain.h5", plain.model, plain.codebooks).bytes
        expected = evaluate(plain.model, batches(name), network(name))
        assert (measured.accuracy.correct, measured.accuracy.kl) == (expected.correct, pytest.approx(expected.kl))


def test_in_place_is_kept_where_it_is_safe() -> None:
    vgg, resnet = network("vgg_small"), network("resnet50_cifar_s2")
    for model in (vgg, resnet):
        as_chain(model, {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)})
        assert all(module.inplace for module in model.modules() if isinstance(module, nn.ReLU))
    after_pool = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Conv2d(1, 4, 3))
    as_chain(after_pool, {"2"})
    assert not after_pool[1].inplace


def test_a_grid_says_what_is_not_there() -> None:
    tensors = describe(network("vgg_small"), example_input(NETWORKS["vgg_small"]))
    assert grid(tensors, ["bias"], ["each", "9"], [1]) == [Point("bias", str(layer), 1) for layer in range(1, 10)]
    with pytest.raises(PlanError, match="no tensor of kind bn_mean"):
        grid(tensors, ["bn_mean"], ["3"], [1])
    with pytest.raises(PlanError, match="1 to 4096"):
        grid(tensors, ["weight"], ["3"], [4097])


class KilledError(Exception):
    pass


def test_a_killed_study_goes_on_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, shared = tmp_path / "points.csv", {"hash": "0123", "git": None}
    whole = Table(tmp_path / "whole.csv", shared)
    fast = study("vgg_small")
    points = grid(fast.tensors, ["weight"], ["1", "5"], [2, 8])
    measure_all(fast, points, whole)

    original = Study.measure

    def killed(self: Study, wanted: list[Point]) -> Iterator[object]:
        for i, measured in enumerate(original(self, wanted)):
            if i == 3:
                raise KilledError
            yield measured

    monkeypatch.setattr(Study, "measure", killed)
    table = Table(path, shared)
    with pytest.raises(KilledError):
        measure_all(study("vgg_small"), points, table)
    again = Table(path, shared)
    assert again.done == set(points[:3])
    monkeypatch.setattr(Study, "measure", original)
    measure_all(study("vgg_small"), [point for point in points if point not in again.done], again)

    def without_seconds(file: Path) -> list[str]:
        header = file.read_text().splitlines()[0].split(",").index("seconds")
        return [
            ",".join(c for i, c in enumerate(line.split(",")) if i != header) for line in file.read_text().splitlines()
        ]

    assert without_seconds(path) == without_seconds(tmp_path / "whole.csv")


def test_a_foreign_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no table of points"):
        Table(tmp_path / "points.csv", {})
