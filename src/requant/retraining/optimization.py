"""Optimizers and learning-rate schedules by name."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from requant.recipe import Recipe

SMALLEST = 1e-15  # what Adam adds to a gradient's size where tensors have rates of their own: a mean over many is small


def optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], recipe: Recipe, rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    """The recipe's optimizer over `parameters`, by name; those in `rates` have rates of their own, and never decay."""
    groups = _groups(dict(parameters), rates, {} if recipe.optimizer == "sgd" else {"eps": SMALLEST})
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, weight_decay=decay, nesterov=nesterov)
    adam = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, lr=rate, weight_decay=decay)


def _groups(
    parameters: Mapping[str, nn.Parameter], rates: Mapping[str, float], options: Mapping[str, float]
) -> list[dict[str, Any]]:
    free = [parameter for name, parameter in parameters.items() if name not in rates]
    own = [
        {"params": [parameter], "lr": rates[name], "weight_decay": 0.0, **options}
        for name, parameter in parameters.items()
        if name in rates
    ]
    return [{"params": free}, *own] if free else own


def _momenta(momentum: float) -> tuple[float, float]:
    """The least and the greatest of a cycle: 0.85 and 0.95 about 0.9, as Smith ("Super-Convergence", 2018) has them."""
    away = min(1 - momentum, momentum) / 2
    return round(momentum - away, 6), round(momentum + away, 6)


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler | None:
    """The recipe's schedule, stepped once a training step, over `steps` steps; None for a constant rate."""
    if recipe.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        least, most = _momenta(recipe.momentum)
        return OneCycleLR(
            optimizer,
            rates,
            total_steps=steps,
            pct_start=recipe.warmup,
            cycle_momentum=recipe.momentum > 0,
            base_momentum=least,
            max_momentum=most,
        )
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return None
