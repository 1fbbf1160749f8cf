"""How weights are trained: the plain value that configs hold and training functions take."""

import math
from dataclasses import dataclass

from requant.errors import ConfigError

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("one_cycle", "cosine", "constant")


@dataclass
class Recipe:
    """Optimizer, schedule and length of a training."""

    epochs: int = 8
    batch_size: int = 128
    """Images a step and device."""
    optimizer: str = "sgd"
    """sgd (Nesterov where momentum > 0), adam, adamw."""
    learning_rate: float = 0.02
    """The highest rate of the schedule."""
    momentum: float = 0.9
    """sgd; one_cycle lets it (Adam's first moment too) fall and rise again, up to half of its distance from 1 away."""
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    """one_cycle, cosine, constant."""
    warmup: float = 0.3
    """one_cycle: the fraction of the steps in which the rate rises."""

    def __post_init__(self) -> None:
        self.check()

    def check(self, of: str = "") -> None:
        """Raise ConfigError for what cannot be; `of` stands before the names of its settings."""
        choice(f"{of}optimizer", self.optimizer, OPTIMIZERS)
        choice(f"{of}schedule", self.schedule, SCHEDULES)
        for name in ("epochs", "batch_size", "learning_rate"):
            positive(**{f"{of}{name}": getattr(self, name)})
        fraction(f"{of}warmup", self.warmup)
        fraction(f"{of}momentum", self.momentum)
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"{of}weight_decay={self.weight_decay}: must be 0 or above")


def choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{name}={value}: choose one of {', '.join(allowed)}")


def positive(**values: float | None) -> None:
    """Raise ConfigError for the first value that is given and not above 0 and finite."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name}={value}: must be above 0 and finite")


def fraction(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is in [0, 1)."""
    if not 0 <= value < 1:
        raise ConfigError(f"{name}={value}: must be in [0, 1)")
