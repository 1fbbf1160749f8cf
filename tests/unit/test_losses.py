import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from requant.retraining.losses import LOSSES, ce, kl, mse

SEEDS = st.integers(0, 2**31 - 1)


def _logits(seed: int, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 5, classes, generator=generator, dtype=torch.float64)
    return a, b


@given(SEEDS, st.floats(0.5, 8))
@settings(max_examples=50, deadline=None)
def test_kl_is_never_negative_and_zero_only_for_equal_distributions(seed: int, temperature: float) -> None:
    a, b = _logits(seed)
    assert kl(a, b, temperature) > 0
    assert kl(a, a + 3.0, temperature).abs() < 1e-12
    assert mse(a, a - 1.0, temperature) < 1e-24


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_ce_is_kl_plus_the_teachers_entropy_and_has_its_gradient(seed: int) -> None:
    a, b = _logits(seed)
    probabilities = b.softmax(1)
    entropy = -(probabilities * probabilities.log()).sum(1).mean()
    assert torch.allclose(ce(a, b), kl(a, b) + entropy)
    left, right = a.clone().requires_grad_(), a.clone().requires_grad_()
    ce(left, b, 2.0).backward()
    kl(right, b, 2.0).backward()
    assert torch.allclose(left.grad, right.grad)


def test_golden_values() -> None:
    student = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 2.5, 0.5], [1.0, -1.0, 2.0]], dtype=torch.float64)
    golden = {"kl": 0.19094873666092926, "mse": 0.0819068651840815, "ce": 0.8416959842080374}  # by plain arithmetic
    for name, value in golden.items():
        assert LOSSES[name](student, teacher, 1.0).item() == pytest.approx(value, rel=1e-9)


def test_golden_values_at_a_temperature() -> None:
    """By plain arithmetic: probabilities of the logits over 2; kl and ce times 4, so that gradients keep their size."""
    student = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 2.5, 0.5], [1.0, -1.0, 2.0]], dtype=torch.float64)
    golden = {"kl": 0.27526530116315573, "mse": 0.04686403343966525, "ce": 4.065418739116157}
    for name, value in golden.items():
        assert LOSSES[name](student, teacher, 2.0).item() == pytest.approx(value, rel=1e-9)


def test_by_hand() -> None:
    student, teacher = torch.log(torch.tensor([[0.5, 0.5]])), torch.log(torch.tensor([[0.25, 0.75]]))
    assert kl(student, teacher).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-6)
    assert mse(student, teacher).item() == pytest.approx(2 * 0.25**2, rel=1e-6)
