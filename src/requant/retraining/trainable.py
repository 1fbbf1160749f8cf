"""What is trained and what stands still."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from requant.errors import ConfigError, UserError
from requant.modes import evaluating
from requant.suggest import did_you_mean


def freeze(student: nn.Module, frozen: Collection[str], only: Collection[str] | None = None) -> list[str]:
    """Leave only the parameters that are not `frozen` (and, where given, are in `only`) with gradients.

    Returns the names of the trainable parameters. Raises UserError for names that the student does not have, and
    ConfigError where none is left.
    """
    known = student.state_dict().keys()
    for name in (*frozen, *(only or ())):
        if name not in known:
            raise UserError(f"the student has no tensor {name!r}{did_you_mean(name, known)}")
    trainable = []
    for name, parameter in student.named_parameters():
        free = name not in frozen and (only is None or name in only)
        parameter.requires_grad_(free)
        if free:
            trainable.append(name)
    if not trainable:
        raise ConfigError(
            "nothing is left to train: the plan quantizes every parameter"
            + ("" if only is None else " of those that are to be (retrain.trainable=last_layer, or `only`)")
            + "; leave some out of its rules (e.g. plan=weights), or set retrain=none"
        )
    return trainable


def freeze_idle(student: nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """Take gradients from the parameters that a loss does not depend on, for which processes would wait in vain.

    Returns their names.
    """
    free = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    with evaluating(student), torch.enable_grad():
        gradients = torch.autograd.grad(loss(), list(free.values()), allow_unused=True)
    idle = [name for name, gradient in zip(free, gradients, strict=True) if gradient is None]
    for name in idle:
        free[name].requires_grad_(False)
    return idle


def set_modes(student: nn.Module, frozen: Collection[str], *, statistics: str, stochastic: bool) -> None:
    """Set which modules of the student are in training mode.

    Batch norms normalise with the batch and update their running statistics, but for those whose running mean or
    variance is `frozen` or that have parameters and train none of them; with statistics="keep" none does. Dropout and
    stochastic depth act only where `stochastic` is set (training a teacher): a student that matches outputs is
    deterministic, like the paper's Keras networks, which have neither.
    """
    student.train(stochastic)
    for name, module in student.named_modules():
        if isinstance(module, _BatchNorm):
            fixed = f"{name}.running_mean" in frozen or f"{name}.running_var" in frozen or _stands_still(module)
            module.train(statistics == "update" and not fixed)


def _stands_still(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
