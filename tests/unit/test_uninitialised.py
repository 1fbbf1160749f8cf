"""Networks that are built without drawing their weights."""

import pytest
import torch
from torch import nn

from requant.models.uninitialised import Uninitialised


def test_parameters_and_generators_stay() -> None:
    weight, state = nn.Parameter(torch.arange(5.0)), torch.get_rng_state()
    with Uninitialised():
        nn.init.normal_(weight)
        nn.init.uniform_(weight, 2, 3)
        nn.init.kaiming_uniform_(weight.view(1, 5))
        with torch.no_grad():
            weight.normal_(1, 2)
        nn.Linear(3, 4)
    assert torch.equal(weight, torch.arange(5.0))
    assert torch.equal(torch.get_rng_state(), state)


def test_other_tensors_are_within_their_bounds() -> None:
    state = torch.get_rng_state()
    with Uninitialised():
        flat, named, unit = torch.empty(4).uniform_(2, 3), torch.empty(4).uniform_(to=-5), torch.empty(4).uniform_()
        normal = torch.empty(4).normal_(mean=7, std=0)
    assert (flat >= 2).all()
    assert (flat <= 3).all()
    assert (named >= -5).all()
    assert (named <= 0).all()
    assert (unit >= 0).all()
    assert (unit <= 1).all()
    assert normal.tolist() == [7, 7, 7, 7]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("memory", [0.0, 9.0, float("inf"), float("nan")])
@pytest.mark.parametrize(("low", "high"), [(-2, 2), (1.5, 3), (0.1, 9)])
def test_truncated_distributions_come_to_an_end_whatever_was_in_memory(
    memory: float, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "empty_like", lambda tensor: torch.full_like(tensor, memory))
    weight = nn.Parameter(torch.full((64,), memory))
    with Uninitialised():
        nn.init.trunc_normal_(weight, a=low, b=high)
