"""Optimizers and learning-rate schedules by name."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from requant.recipe import Recipe


def optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over `parameters`."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay, nesterov=nesterov)
    adam = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return adam(parameters, lr=rate, weight_decay=decay)


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler | None:
    """The recipe's schedule, stepped once a training step, over `steps` steps; None for a constant rate."""
    if recipe.schedule == "one_cycle":
        return OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=recipe.warmup)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return None
