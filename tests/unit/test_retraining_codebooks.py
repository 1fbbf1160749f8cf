"""Retraining with the codebooks trained: what moves and how far, what holds at the end, and that it can be resumed."""

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_retraining import EXAMPLE, images, network
from torch import nn

from requant import archive, price
from requant.archive.fitting import coded_bits
from requant.codebook import Codebook
from requant.codebook_forms import GroupedCodebook, VectorCodebook
from requant.compression import Compressed, check_placed, compress, place
from requant.errors import ConfigError, UserError
from requant.evaluation import outputs
from requant.recipe import Recipe
from requant.retraining import Movement, retrain, retrain_codebooks
from requant.retraining.codebooks import spacing
from requant.retraining.losses import kl

RECIPE = Recipe(epochs=3, batch_size=16, optimizer="adam", learning_rate=0.003)
RULES = [{"kind": "weight", "centroids": 3}, {"kind": "bn_beta", "centroids": 1}, {"kind": "bn_mean", "centroids": 1}]


def compressed(teacher: nn.Module, rules: list[dict[str, Any]] | None = None, **options: Any) -> Compressed:
    return compress(teacher, rules or RULES, EXAMPLE, **options)


def distance(student: nn.Module, teacher: nn.Module) -> float:
    batches = [(images(), torch.zeros(70, dtype=torch.int64))]
    return float(kl(outputs(student, batches)[0], outputs(teacher, batches)[0]))


def test_codebooks_move_and_hold_and_come_back_from_their_file(tmp_path: Path) -> None:
    teacher = network()
    student = compressed(teacher)
    plain = copy.deepcopy(student.model)
    retrain(plain, teacher, images(), codebooks=student.codebooks, recipe=RECIPE)
    quantized = distance(student.model, teacher)
    history, books = retrain_codebooks(
        student.model,
        teacher,
        images(),
        codebooks=student.codebooks,
        recipe=RECIPE,
        movement=Movement(0.02, 0.05),
    )
    assert history.curve[-1]["loss"] < history.curve[0]["loss"]
    assert distance(student.model, teacher) < distance(plain, teacher) < quantized
    check_placed(student.model, books)
    assert list(books) == list(student.codebooks)
    assert set(student.model.state_dict()) == set(teacher.state_dict())
    weight = books["5.weight"]
    assert (weight.indices != student.codebooks["5.weight"].indices).any()
    assert (weight.centroids != student.codebooks["5.weight"].centroids).all()
    assert books["1.bias"].k == 1
    assert books["1.bias"].centroids != student.codebooks["1.bias"].centroids
    assert books["1.running_mean"] is student.codebooks["1.running_mean"]
    archive.save(tmp_path / "small.h5", student.model, books, storage="entropy")
    restored = archive.load(tmp_path / "small.h5", model=teacher)
    assert all(torch.equal(value, restored.state_dict()[name]) for name, value in student.model.state_dict().items())


def test_without_a_latent_rate_indices_stay() -> None:
    teacher = network()
    student = compressed(teacher)
    _, books = retrain_codebooks(
        student.model, teacher, images(), codebooks=student.codebooks, recipe=RECIPE, movement=Movement(0.02, 0)
    )
    check_placed(student.model, books)
    for name, book in student.codebooks.items():
        assert (books[name].indices == book.indices).all()
    assert (books["5.weight"].centroids != student.codebooks["5.weight"].centroids).all()


def test_the_first_step_of_adam_moves_everything_by_its_rate() -> None:
    """Whatever the size of a gradient: golden values of one step, by hand."""
    teacher = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        teacher[0].weight.copy_(torch.tensor([[2.0, -1.0], [0.5, 0.0]]))
        teacher[0].bias.zero_()
    book = Codebook(np.float32([-1, -0.25, 0.5]), np.uint8([[2, 0], [1, 1]]))
    student = copy.deepcopy(teacher)
    place(student, {"0.weight": book})
    recipe = Recipe(epochs=1, batch_size=1, optimizer="adam", learning_rate=0.25, schedule="constant")
    _, books = retrain_codebooks(
        student,
        teacher,
        torch.tensor([[3.0, 1.0]]),
        codebooks={"0.weight": book},
        recipe=recipe,
        movement=Movement(centroid_rate=0.125, latent_rate=0.875),
    )
    # The teacher's logits are 5 and 1.5, the student's 0.5 and -1: row 0 is to rise, row 1 to fall. Neighbouring
    # centroids are 0.75 apart. Centroids move by 0.09375: -1 and 0.5 (of row 0) up, -0.25 (of row 1) down. Latents
    # begin at 1.25 and -1 (half of the way from 0.5 to 2; -1 is its centroid), -0.0625 and -0.125 (from -0.25 to the
    # border, 0.125, and to 0), and move by 0.65625: three take another centroid.
    assert books["0.weight"].centroids.tolist() == [-0.90625, -0.34375, 0.59375]
    assert books["0.weight"].indices.tolist() == [[2, 1], [0, 0]]
    assert student[0].bias.tolist() == pytest.approx([0.25, -0.25])


def test_a_grid_stays_a_grid() -> None:
    teacher = network()
    grid = (np.arange(7) - 3).astype(np.float32) * np.float32(0.125)
    weight = teacher[0].weight.detach().numpy()
    indices = np.clip(np.rint(weight / 0.125) + 3, 0, 6).astype(np.uint8)
    student, books = copy.deepcopy(teacher), {"0.weight": Codebook(grid, indices)}
    place(student, books)
    movement = Movement(0.05, 0.05, together=True)
    _, found = retrain_codebooks(student, teacher, images(), codebooks=books, recipe=RECIPE, movement=movement)
    check_placed(student, found)
    trained: Any = found["0.weight"]
    assert trained.centroids[-1] != grid[-1]
    np.testing.assert_allclose(trained.centroids, np.arange(-3, 4) * trained.centroids[-1] / 3, rtol=1e-6, atol=1e-9)


def coarse(teacher: nn.Module) -> dict[str, Codebook]:
    """Grids of three deviations, on which most weights are 0 and training wants more of them elsewhere."""
    books = {}
    for name in ("0.weight", "5.weight"):
        weight = teacher.get_parameter(name).detach().numpy()
        step = np.float32(3 * weight.std())
        books[name] = Codebook(
            (np.arange(5) - 2).astype(np.float32) * step, np.clip(np.rint(weight / step) + 2, 0, 4).astype(np.uint8)
        )
    return books


def bits_of(books: Mapping[str, Any]) -> float:
    return sum(map(coded_bits, books.values()))


@pytest.mark.parametrize("hold", [True, False])
def test_indices_take_no_more_bits_than_before_where_they_are_held_to_that(
    hold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file, whose coder knows channels."""
    monkeypatch.setattr(price, "EVERY", 3)
    teacher = network()
    student, books = copy.deepcopy(teacher), coarse(teacher)
    place(student, books)
    before = distance(student, teacher)
    movement = Movement(0.02, 0.1, together=True, hold_bits=hold)
    recipe = dataclasses.replace(RECIPE, epochs=6)
    _, found = retrain_codebooks(student, teacher, images(), codebooks=books, recipe=recipe, movement=movement)
    check_placed(student, found)
    assert distance(student, teacher) < before
    assert (bits_of(found) < 1.005 * bits_of(books)) is hold
    if not hold:
        assert bits_of(found) > 1.1 * bits_of(books)


def test_the_first_step_of_a_grid_moves_its_ends_by_the_rate() -> None:
    """A step of Adam: of the factor so far that the outermost of 7 centroids moves by 0.1 of their distance."""
    teacher = network()
    grid = (np.arange(7) - 3).astype(np.float32) * np.float32(0.125)
    weight = teacher[0].weight.detach().numpy()
    books = {"0.weight": Codebook(grid, np.clip(np.rint(weight / 0.125) + 3, 0, 6).astype(np.uint8))}
    student = copy.deepcopy(teacher)
    place(student, books)
    recipe = Recipe(epochs=1, batch_size=70, optimizer="adam", schedule="constant")
    movement = Movement(0.1, 1e-9, together=True)
    _, found = retrain_codebooks(student, teacher, images(), codebooks=books, recipe=recipe, movement=movement)
    trained: Any = found["0.weight"]
    assert abs(trained.centroids[-1] - grid[-1]) == pytest.approx(0.1 * 0.125, rel=1e-4)


def test_latents_begin_at_the_centroids_where_the_teacher_has_another_shape() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
    student = compress(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), [{"kind": "weight", "centroids": 3}], EXAMPLE)
    settings: dict[str, Any] = {"codebooks": student.codebooks, "recipe": RECIPE, "movement": Movement(0.02, 0.02)}
    history, books = retrain_codebooks(student.model, teacher, images(), **settings)
    check_placed(student.model, books)
    assert history.curve[-1]["loss"] < history.curve[0]["loss"]


class Breaks:
    """Images that fail once, in the third epoch."""

    fixed = True
    broken = False

    def __len__(self) -> int:
        return 70

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        if max(indices) >= 140 and not Breaks.broken:
            Breaks.broken = True
            raise InterruptedError
        return images()[torch.tensor(indices) % 70]


@pytest.mark.parametrize("held", [False, True])
def test_a_training_cut_short_goes_on_to_the_same_bits(
    tmp_path: Path, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The price of a bit too, which coarse grids have and others have not."""
    monkeypatch.setattr(price, "EVERY", 2)
    teacher = network(1)

    def train(source: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        student, books = copy.deepcopy(teacher), coarse(teacher) if held else compressed(teacher).codebooks
        place(student, books)
        movement = Movement(0.02, 0.1, together=True, hold_bits=True) if held else Movement(0.02, 0.02)
        settings: dict[str, Any] = {"recipe": RECIPE, "movement": movement, "folder": folder, "in_memory": False}
        _, found = retrain_codebooks(student, teacher, source, codebooks=books, **settings)
        return found, student.state_dict()

    Breaks.broken = False
    whole, weights = train(images(), tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(Breaks(), tmp_path / "cut")
    assert len((tmp_path / "cut" / "metrics.csv").read_text().splitlines()) == 3  # a header and two epochs
    resumed, same = train(Breaks(), tmp_path / "cut")
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    for name, book in whole.items():
        assert (resumed[name].centroids == book.centroids).all()
        assert (resumed[name].indices == book.indices).all()


def test_only_what_is_named_moves() -> None:
    teacher = network()
    student = compressed(teacher)
    before = copy.deepcopy(student.model.state_dict())
    _, books = retrain_codebooks(
        student.model,
        teacher,
        images(),
        codebooks=student.codebooks,
        recipe=RECIPE,
        only={"5.weight", "5.bias"},
    )
    moved = {k for k, v in student.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"5.weight", "5.bias"}
    assert books["0.weight"] is student.codebooks["0.weight"]


@pytest.mark.parametrize(
    "rule", [{"granularity": "channel"}, {"granularity": "group_scale:8"}, {"method": "product", "block": 4}]
)
def test_of_groups_and_vectors_the_centroids_move(rule: dict[str, Any]) -> None:
    teacher = network()
    student = compressed(teacher, [{"name": r".*\.weight", "layers": "2", "centroids": 2, **rule}])
    before = distance(student.model, teacher)
    recipe = Recipe(epochs=6, batch_size=35, optimizer="adam", learning_rate=0.001)
    settings: dict[str, Any] = {"codebooks": student.codebooks, "recipe": recipe}
    with pytest.raises(UserError, match=r"latent_rate above 0.* needs one table .* granularity tensor"):
        retrain_codebooks(student.model, teacher, images(), **settings)
    _, books = retrain_codebooks(student.model, teacher, images(), movement=Movement(0.02, 0), **settings)
    check_placed(student.model, books)
    assert (books["5.weight"].dense() != student.codebooks["5.weight"].dense()).all()
    assert (books["5.weight"].indices == student.codebooks["5.weight"].indices).all()
    assert distance(student.model, teacher) < before


def test_what_cannot_be_trained_is_refused() -> None:
    teacher = network()
    split = compressed(teacher, split=0.1)
    with pytest.raises(UserError, match="cluster it without split"):
        retrain_codebooks(
            split.model, teacher, images(), codebooks=split.codebooks, movement=Movement(0.01, 0), recipe=RECIPE
        )
    with pytest.raises(ConfigError, match="adam or adamw"):
        retrain_codebooks(split.model, teacher, images(), codebooks=split.codebooks, recipe=Recipe())


def test_the_distance_between_centroids() -> None:
    indices = np.zeros((2, 2), np.uint8)
    assert spacing(Codebook(np.float32([-1, 0, 0, 0.5, 10]), indices)) == 1.0  # of 1, 0.5, 9.5
    assert spacing(Codebook(np.float32([2]), indices)) is None
    assert spacing(Codebook(np.float32([2, 2]), indices)) is None
    grouped = GroupedCodebook(np.float32([[3, 0, 1], [0, 10, 11.5]]), indices, 2)
    assert spacing(grouped) == 1.75  # of 1, 2, 10, 1.5
    vectors = VectorCodebook(np.float32([[0, 0], [3, 4], [3, 4], [30, 40]]), np.zeros((1, 2), np.uint8), (1, 4))
    nearest = [5.0, 5.0, 5.0, 45.0]  # the same vector again is no neighbour
    assert spacing(vectors) == pytest.approx(np.median(nearest) / np.sqrt(2))  # a value of the two


@pytest.mark.slow
def test_two_processes_end_in_the_same_weights(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_retraining import images, network\n"
        "from test_retraining_codebooks import RECIPE, compressed\n"
        "from requant.retraining import Movement, retrain_codebooks\n"
        "student = compressed(network())\n"
        "_, books = retrain_codebooks(student.model, network(), images(), codebooks=student.codebooks, recipe=RECIPE,\n"
        "    movement=Movement(0.02, 0.02), trainer={'devices': 2, 'strategy': 'ddp'})\n"
        "found = student.model.state_dict() | {f'{n} indices': torch.from_numpy(b.indices) for n, b in books.items()}\n"
        "torch.save(found, os.path.join(sys.argv[1], os.environ.get('LOCAL_RANK', '0') + '.pt'))\n"
    )
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_codebooks_trained_in_double_precision_can_be_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).double()
    images = torch.randn(32, 1, 4, 4, dtype=torch.float64)
    found = compress(model, [{"kind": "weight", "centroids": 4}], images[:1])
    recipe = Recipe(epochs=1, optimizer="adam")
    _, books = retrain_codebooks(found.model, model, images, codebooks=found.codebooks, recipe=recipe)
    archive.save(tmp_path / "a.h5", found.model, books)
    assert torch.equal(archive.load(tmp_path / "a.h5", copy.deepcopy(model))[1].weight, found.model[1].weight)
