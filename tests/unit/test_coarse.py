"""What is not clustered, on grids as coarse as the noise allows: biases, and batch norms' scales and shifts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from requant import archive
from requant.archive.steps import step_of
from requant.auto import Grids, grids, in_units
from requant.compression import check_placed
from requant.reconstruction import coarse, reconstruct
from requant.reconstruction.coarse import REACHES, on_steps
from requant.reconstruction.corrections import lost
from requant.reconstruction.statistics import mean_and_variance, noise


@given(arrays.arrays(np.float32, 70, elements=st.floats(-100, 100, width=32)), st.floats(0.125, 8))
def test_values_go_to_the_nearest_multiple(values: np.ndarray, step: float) -> None:
    book = on_steps(torch.from_numpy(values), step)
    assert book is not None
    assert np.abs(book.dense() - values).max() <= step / 2 + 1e-4
    assert book.k // 2 in REACHES
    assert step_of(book.centroids) == np.float32(step)


def test_what_is_too_short_or_too_fine_stays() -> None:
    values = torch.linspace(-1, 1, 70)
    assert on_steps(values[: coarse.LEAST - 1], 0.1) is None
    assert all(on_steps(values, step) is None for step in (0.0, float("inf"), float("nan"), 1 / 2048))
    assert on_steps(values, 1 / 2047) is not None


def test_noise_is_what_channels_differ_by() -> None:
    teacher = [torch.randn(4, 3, 8, 8) for _ in range(2)]
    student = [batch + torch.tensor([0.0, 1, -2])[:, None, None] for batch in teacher]
    torch.testing.assert_close(noise(student, teacher), torch.tensor([0.0, 1, 2], dtype=torch.float64))
    pairs = [[batch + (-1) ** torch.arange(8) for batch in batches] for batches in (student, teacher)]
    torch.testing.assert_close(noise(student, pairs[1]), torch.tensor([1.0, 2, 5], dtype=torch.float64).sqrt())
    torch.testing.assert_close(
        noise(student, pairs[1], of_means=True), torch.tensor([0.0, 1, 2], dtype=torch.float64), atol=1e-6, rtol=1e-6
    )
    moved = [[batch.movedim(1, -1) for batch in batches] for batches in (student, teacher)]
    torch.testing.assert_close(noise(*moved, axis=3), noise(student, teacher))


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 80, 3), nn.BatchNorm2d(80)
        self.plain, self.fc = nn.Conv2d(80, 72, 1), nn.Linear(72, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.plain(torch.relu(self.norm(self.conv(x)))))
        return self.fc(x.mean((2, 3)))


def example() -> tuple[Grids, list[Tensor]]:
    torch.manual_seed(0)
    model = Wide()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 2)
        model.norm.bias.normal_()
    images = torch.randn(64, 3, 12, 12)
    return grids(model.eval(), images[:1], images.split(1)[:16]), list(images.split(16))


NAMES = ("norm.weight", "norm.bias", "plain.bias")  # fc.bias is too short


def test_they_are_on_grids_whose_steps_follow_the_noise() -> None:
    found, batches = example()
    books = found.at(0.01).codebooks
    _, plain = reconstruct(found.base, books, batches, 0.1)
    assert set(plain) == set(books)
    fine, coarser = (reconstruct(found.base, books, batches, 0.1, grain=grain) for grain in (0.2, 0.8))
    for student, made in (fine, coarser):
        assert set(made) == {*books, *NAMES}
        check_placed(student, made)
    assert all(made.entropy_bits > coarser[1][name].entropy_bits for name, made in fine[1].items() if name in NAMES)


def test_outputs_keep_the_teachers_means_to_half_a_step() -> None:
    found, batches = example()
    student, books = reconstruct(found.base, found.at(0.01).codebooks, batches, 0.1, grain=0.4)
    with torch.no_grad():
        means = [mean_and_variance([m.norm(m.conv(b)) for b in batches])[0] for m in (student, found.base)]
    step = float(np.diff(books["norm.bias"].centroids)[0])
    assert float((means[0] - means[1]).abs().max()) <= 0.51 * step


def test_where_nothing_is_rounded_there_is_no_noise_and_nothing_to_round() -> None:
    found, batches = example()
    student, books = reconstruct(found.base, {}, batches, 0.1, grain=0.2)
    assert not books
    torch.testing.assert_close(student.norm.bias, found.base.norm.bias)


def test_a_channel_that_says_something_is_not_multiplied_by_0() -> None:
    """One of large outputs has a small scale, where scales are not taken into the weights."""
    scale = torch.ones(70)
    scale[3], scale[4] = 0.001, 0
    book, signal = on_steps(scale, 0.1), torch.ones(70, dtype=torch.bool)
    assert book is not None
    assert lost(scale, book, signal)
    signal[3] = False
    assert not lost(scale, book, signal)


class Shared(Wide):
    """Two layers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(72, 72, 1)
        self.again.bias = self.plain.bias

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.plain(torch.relu(self.norm(self.conv(x)))))
        return self.fc(torch.relu(self.again(x)).mean((2, 3)))


def test_a_bias_of_two_layers_is_put_on_a_grid_once() -> None:
    torch.manual_seed(0)
    model, images = Shared().eval(), torch.randn(64, 3, 12, 12)
    found = grids(model, images[:1], images.split(1)[:16])
    student, books = reconstruct(found.base, found.at(0.01).codebooks, list(images.split(16)), 0.1, grain=0.2)
    check_placed(student, books)
    with torch.no_grad():
        seen = [[m.plain(torch.relu(m.norm(m.conv(b)))) for b in images.split(16)] for m in (student, found.base)]
    step = float(np.diff(books["plain.bias"].centroids)[0])
    apart = mean_and_variance(seen[0])[0] - mean_and_variance(seen[1])[0]
    assert float(apart.abs().max()) <= 0.51 * step


@pytest.mark.parametrize("storage", ["packed", "entropy"])
def test_files_hold_them_in_units_of_their_layers_steps(storage: str, tmp_path: Path) -> None:
    found, batches = example()
    student, books = reconstruct(found.base, found.at(0.01).codebooks, batches, 0.1, grain=0.2)
    held, held_books = in_units(found, student, books)
    check_placed(held, held_books)
    archive.save(tmp_path / "a.h5", held, held_books, storage=storage)
    back = archive.load(tmp_path / "a.h5", Wide())
    with torch.no_grad():
        torch.testing.assert_close(back(batches[0]), student.eval()(batches[0]), rtol=0.02, atol=0.02)
    assert {*NAMES} <= set(archive.read(tmp_path / "a.h5").codebooks)
