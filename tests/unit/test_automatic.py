"""plan=auto in one call: sizes of files on disk, drops of networks loaded from them, and what is refused."""

import copy
from pathlib import Path

import pytest
import torch
from test_coarse import Wide
from test_reconstruction import divergence, images
from torch import Tensor, nn

from requant import Movement, Recipe, compress, compress_to, load, reconstruct, save
from requant.archive.steps import step_of
from requant.compression import Compressed, check_placed
from requant.errors import UserError
from requant.targets import TRAINED

SEEN, MANY, OTHERS = images(96), images(512, seed=5), images(64, seed=9)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2), nn.Flatten(), nn.Linear(32 * 9, 10))
    nn.init.uniform_(model[1].weight, 0.5, 2.0)
    model[1].running_var.uniform_(0.1, 2.0)
    nn.init.normal_(model[-1].weight, std=1.0)  # outputs that differ from image to image
    return model.eval()


def stored(path: Path, found: Compressed) -> tuple[int, nn.Module]:
    """The bytes of the file on disk, and the network that it holds."""
    check_placed(found.model, found.codebooks)
    save(path, found.model, found.codebooks, storage="entropy")
    return path.stat().st_size, load(path, model=network(seed=1))


@pytest.mark.parametrize("trellis", [False, True])
def test_the_file_has_the_size_and_the_network_is_near(tmp_path: Path, trellis: bool) -> None:
    teacher = network()
    before = copy.deepcopy(teacher.state_dict())
    found = compress_to(teacher, SEEN, size=6500, damping=0.1, trellis=trellis)
    size, student = stored(tmp_path / "a", found)
    assert 6500 * 0.99 <= size <= 6500
    rounded = compress_to(teacher, SEEN, size=6500, reconstruct_on=0)
    assert divergence(student, teacher, OTHERS) < divergence(rounded.model, teacher, OTHERS) / 2
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_training_brings_it_nearer_within_the_size(tmp_path: Path) -> None:
    teacher = network()
    settings = {"damping": 0.1, "trellis": False}
    before = compress_to(teacher, MANY, size=round(TRAINED * 4500), **settings)
    recipe = Recipe(epochs=20, batch_size=32, optimizer="adam", learning_rate=1e-3)
    found = compress_to(teacher, MANY, size=4500, recipe=recipe, movement=Movement(0.001, 0.003), **settings)
    size, student = stored(tmp_path / "a", found)
    assert 4500 * 0.98 <= size <= 4500
    assert divergence(student, teacher, MANY) < divergence(before.model, teacher, MANY)


def test_norms_and_biases_are_trained_on_their_grids() -> None:
    torch.manual_seed(0)
    teacher = Wide().eval()
    nn.init.normal_(teacher.fc.weight)
    vectors = {"norm.weight", "norm.bias", "plain.bias"}
    settings = {"damping": 0.1, "trellis": False, "movement": Movement(0.001, 0.003)}
    recipe = Recipe(epochs=8, batch_size=32, optimizer="adam", learning_rate=1e-3)
    before = compress_to(teacher, MANY, size=round(TRAINED * 2600), **settings)
    found = compress_to(teacher, MANY, size=2600, recipe=recipe, **settings)
    assert vectors <= found.codebooks.keys() & before.codebooks.keys()
    check_placed(found.model, found.codebooks)
    assert all(step_of(found.codebooks[name].centroids) is not None for name in vectors)
    assert any((found.codebooks[name].indices != before.codebooks[name].indices).any() for name in vectors)
    assert divergence(found.model, teacher, MANY) < divergence(before.model, teacher, MANY)


def test_training_that_moves_it_away_is_undone(tmp_path: Path) -> None:
    teacher = network()
    settings = {"damping": 0.1, "trellis": False}
    before = compress_to(teacher, SEEN, size=round(TRAINED * 6500), **settings)
    recipe = Recipe(epochs=1, batch_size=32, optimizer="adam", learning_rate=0.5)
    with pytest.warns(UserWarning, match="training moved the network away, from .* it is left as it was"):
        found = compress_to(teacher, SEEN, size=6500, recipe=recipe, **settings)
    size, student = stored(tmp_path / "a", found)
    assert 6500 * 0.98 <= size <= 6500
    assert divergence(student, teacher, OTHERS) < 1.5 * divergence(before.model, teacher, OTHERS)


def test_clusters_of_one_s_own_rules_are_reconstructed_in_one_call(tmp_path: Path) -> None:
    teacher = network()
    student = compress(teacher, [{"kind": "weight", "centroids": 8}], SEEN[:1])
    before = copy.deepcopy(student.model.state_dict())
    found = reconstruct(teacher, student, SEEN, damping=0.1)
    _, loaded = stored(tmp_path / "a", found)
    assert divergence(loaded, teacher, OTHERS) < divergence(student.model, teacher, OTHERS) / 2
    assert all(torch.equal(value, before[name]) for name, value in student.model.state_dict().items())
    assert found.assignments == student.assignments
    with pytest.raises(UserError, match="there are no images"):
        reconstruct(teacher, student, SEEN[:0])


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        stored(tmp_path / name, compress_to(network(), SEEN, size=6000, damping=0.1, seed=3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_outputs_drop_by_no_more_than_was_said(tmp_path: Path) -> None:
    teacher = network()
    sizes = []
    for drop in (0.25, 0.03):
        size, student = stored(
            tmp_path / f"{drop}", compress_to(teacher, SEEN, drop=drop, held_out=OTHERS, damping=0.1)
        )
        assert changed(student, teacher) <= drop
        sizes.append(size)
    assert sizes[0] < sizes[1]


def changed(student: nn.Module, teacher: nn.Module) -> float:
    with torch.no_grad():
        return float((student(OTHERS).argmax(1) != teacher(OTHERS).argmax(1)).float().mean())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "one of two"),
        ({"size": 6000, "drop": 0.1}, "one of two"),
        ({"drop": 0.1}, "give held_out"),
        ({"size": 300}, "cannot be had"),
    ],
)
def test_aims_that_cannot_be_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compress_to(network(), SEEN, damping=0.1, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(0, 3, 16, 16), "no images"),
        (torch.zeros(8, 3, 16, 16, dtype=torch.uint8), "normalise them"),
        (torch.full((8, 3, 16, 16), torch.nan), "not finite|NaN|finite"),
    ],
)
def test_images_that_cannot_be_are_refused(given: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compress_to(network(), given, size=6000)


def test_weights_that_are_not_finite_are_refused() -> None:
    teacher = network()
    teacher[3].weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match=r"3\.weight"):
        compress_to(teacher, SEEN, size=6000)
