"""Channels' means and deviations, and the corrections that follow; the Fisher information of weights."""

import pytest
import torch
from torch import nn

from requant.reconstruction.curvature import fisher
from requant.reconstruction.statistics import ROWS, correction, mean_and_variance


def test_corrected_channels_have_the_wanted_mean_and_deviation() -> None:
    teacher, student = [torch.randn(8, 5, 4, 4) * 1.5 + 1, torch.randn(3, 5, 4, 4)], [torch.randn(8, 5, 4, 4)] * 2
    student[0][:, 4], student[1][:, 4] = 3.0, 3.0  # constant: shifted only
    scale, shift = correction(student, teacher)
    fixed = [batch * scale[:, None, None] + shift[:, None, None] for batch in student]
    (mean, variance), (wanted_mean, wanted_variance) = mean_and_variance(fixed), mean_and_variance(teacher)
    assert torch.allclose(mean, wanted_mean, atol=1e-5)
    assert torch.allclose(variance[:4], wanted_variance[:4], rtol=1e-3)
    assert scale[4] == 1
    assert torch.equal(correction(student, teacher, deviations=False)[0], torch.ones(5))


def test_means_and_variances_are_those_of_all_outputs_however_they_are_batched() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(n, 5, 4, 3, generator=generator) * n + n for n in (8, 3, 1)]  # batches differ
    rows = torch.cat(batches).transpose(0, 1).flatten(1).double()
    for axis, moved in ((1, batches), (3, [batch.movedim(1, -1) for batch in batches])):
        mean, variance = mean_and_variance(moved, axis)
        assert torch.allclose(mean, rows.mean(1), rtol=1e-5)
        assert torch.allclose(variance, rows.var(1, unbiased=False), rtol=1e-5)


def test_corrections_are_bounded() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(9, 3, 8, 8, generator=generator)
    factors = torch.tensor([100.0, 0.01, -1.0])[:, None, None]  # the last is the opposite of the teacher's
    plain, _ = correction([teacher * factors], [teacher])
    assert torch.allclose(plain, torch.tensor([0.5, 2.0, 1.0]))
    gained, _ = correction([teacher * factors], [teacher], gain=1.0)
    assert torch.allclose(gained, torch.tensor([0.5, 2.0, 4.0]))


def test_of_many_outputs_an_even_grid_says_what_all_say() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = [torch.randn(100, 3, 32, 64, generator=generator) for _ in range(4)]
    student = [2 * batch - 0.5 for batch in teacher]
    mean, variance = mean_and_variance(teacher)
    rows = torch.cat(teacher).transpose(0, 1).flatten(1).double()
    assert torch.allclose(mean, rows.mean(1), atol=5 / ROWS**0.5)
    assert torch.allclose(variance, rows.var(1), rtol=5 * (2 / ROWS) ** 0.5)
    assert not torch.allclose(mean, rows.mean(1), atol=1e-9)  # fewer than all were looked at
    scale, shift = correction(student, teacher, gain=0.4)
    assert torch.allclose(scale, torch.full((3,), 0.5), atol=1e-5)
    assert torch.allclose(shift, torch.full((3,), 0.25), atol=1e-5)


def test_a_gain_of_one_gives_the_signal_the_teachers_size() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = [torch.randn(6, 5, 8, 8, generator=generator) for _ in range(3)]
    student = [0.7 * x + 0.3 * torch.randn(x.shape, generator=generator) + 2 for x in teacher]
    scale, shift = correction(student, teacher, gain=1.0)
    fixed = torch.cat(student) * scale[:, None, None] + shift[:, None, None]
    wanted = torch.cat(teacher)
    for channel in range(5):
        found, true = fixed[:, channel].flatten().double(), wanted[:, channel].flatten().double()
        slope = ((found - found.mean()) * (true - true.mean())).mean() / true.var(unbiased=False)
        assert float(slope) == pytest.approx(1, abs=1e-4)
        assert float(found.mean()) == pytest.approx(float(true.mean()), abs=1e-4)
    assert torch.equal(correction(student, student, gain=1.0)[0].round(decimals=5), torch.ones(5))


def test_fisher_information_is_the_curvature_of_the_divergence() -> None:
    """Of one logistic output: p (1 - p) x^2, whatever class is drawn its expectation."""
    model = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(model.weight)
    found = fisher(model, [torch.full((1, 1), 2.0)] * 50)["weight"]
    assert torch.allclose(found, torch.ones(2, 1))  # (1/2 * 2)^2 for either class
    assert model.weight.grad is None


def test_fisher_information_is_that_of_the_network_in_use_and_its_draws_follow_the_seed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4)).train()
    pictures = torch.randn(5, 3, 2, 2).split(1)
    found = [fisher(model, pictures, seed)["2.weight"] for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert all(module.training for module in model.modules())
    assert torch.equal(found[0], fisher(model.eval(), pictures)["2.weight"])
