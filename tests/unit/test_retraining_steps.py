"""What a step of training is: optimizers, rates, schedules."""

import pytest
import torch
from test_retraining import network
from torch import nn

from requant.recipe import Recipe
from requant.retraining.module import Retraining
from requant.retraining.objectives import MatchTeacher
from requant.retraining.optimization import optimizer, schedule
from requant.retraining.trainable import freeze


def test_weight_decay_cannot_touch_frozen_tensors() -> None:
    student = network()
    freeze(student, {"5.weight"})
    module = Retraining(student, MatchTeacher(network(1)), Recipe(weight_decay=0.1, schedule="constant"))
    module.trainer = type("T", (), {"estimated_stepping_batches": 1})()
    held = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
    assert id(student[5].weight) not in held
    assert len(held) == 4


@pytest.mark.parametrize(
    ("recipe", "free", "own"),
    [
        (Recipe(optimizer="sgd", momentum=0.5), 1 - 0.1 * 1.5, 1 - 0.2 * 1.5),  # Nesterov: gradient + 0.5 of it
        (Recipe(optimizer="sgd", momentum=0.0), 1 - 0.1, 1 - 0.2),
        (Recipe(optimizer="sgd", momentum=0.0, weight_decay=0.5), 1 - 0.1 * 1.5, 1 - 0.2),
        (Recipe(optimizer="adam"), 1 - 0.1, 1 - 0.2),
        (Recipe(optimizer="adamw", weight_decay=0.5), 1 - 0.1 * 0.5 - 0.1, 1 - 0.2),
    ],
)
def test_a_step_is_that_of_the_recipes_optimizer_and_rates_of_their_own_never_decay(
    recipe: Recipe, free: float, own: float
) -> None:
    """By hand, of two values of 1 whose gradients are 1; the second has a rate of its own."""
    recipe.learning_rate = 0.1
    values = {name: nn.Parameter(torch.ones(1)) for name in ("free", "own")}
    made = optimizer(values.items(), recipe, {"own": 0.2})
    for value in values.values():
        value.grad = torch.ones(1)
    made.step()
    assert [value.item() for value in values.values()] == pytest.approx([free, own], rel=1e-5)


def test_a_small_gradient_moves_what_has_a_rate_of_its_own_as_far_as_a_large_one() -> None:
    for name in ("adam", "adamw"):
        value = nn.Parameter(torch.ones(1))
        made = optimizer([("own", value)], Recipe(optimizer=name), {"own": 0.25})
        value.grad = torch.full((1,), 1e-12)
        made.step()
        assert value.item() == pytest.approx(0.75, rel=2e-3)


def test_cosine_falls_to_zero_over_all_steps_and_constant_stays() -> None:
    made = optimizer([("w", nn.Parameter(torch.zeros(3)))], Recipe(learning_rate=0.5), {})
    assert schedule(made, Recipe(schedule="constant"), 100) is None
    rates = schedule(made, Recipe(schedule="cosine"), 100)
    assert rates is not None
    seen = []
    for _ in range(100):
        seen.append(made.param_groups[0]["lr"])
        made.step()
        rates.step()
    assert [seen[0], seen[50]] == pytest.approx([0.5, 0.25])
    assert seen == sorted(seen, reverse=True)
    assert made.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("asked", "least", "most"), [(0.9, 0.85, 0.95), (0.5, 0.25, 0.75), (0.0, 0.0, 0.0)])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_one_cycle_turns_about_what_is_asked_for(name: str, asked: float, least: float, most: float) -> None:
    recipe = Recipe(optimizer=name, momentum=asked)
    made = optimizer([("w", nn.Parameter(torch.zeros(3)))], recipe, {})
    rates = schedule(made, recipe, 100)
    assert rates is not None

    def momentum() -> float:
        group = made.param_groups[0]
        return group["momentum"] if name == "sgd" else group["betas"][0]

    seen = []
    for _ in range(99):
        seen.append(momentum())
        made.step()
        rates.step()
    if asked == 0:
        assert set(seen) == {0.0 if name == "sgd" else 0.9}
    else:
        assert (min(seen), max(seen)) == pytest.approx((least, most), abs=1e-3)
        assert seen[0] == most
