"""Losses between the outputs of student and teacher (N, C, ...): the mean over images and positions."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from requant.errors import ConfigError, UserError
from requant.outputs import SIGMOID, SOFTMAX, VALUES, meaning, positions
from requant.recipe import choice

Loss = Callable[[Tensor, Tensor, float], Tensor]


def kl(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the student from the teacher, KL(p_teacher || p_student), in nats.

    Both are softened by the temperature T and the result is scaled by T^2, so that gradients keep their size
    (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.1).
    """
    student, teacher = student_NC / temperature, teacher_NC / temperature
    divergence = F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
    return divergence * temperature**2 / positions(teacher_NC)


def mse(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:
    """Squared distance of the probability vectors (summed over classes)."""
    difference = (student_NC / temperature).softmax(1) - (teacher_NC / temperature).softmax(1)
    return difference.square().sum(1).mean()


def ce(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy against the teacher's probabilities: `kl` plus the teacher's entropy; the same gradient."""
    return F.cross_entropy(student_NC / temperature, (teacher_NC / temperature).softmax(1)) * temperature**2


def binary_kl(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:
    """`kl` where each of the C scores stands for a yes or no of its own: their sum."""
    student_NC = student_NC.to(teacher_NC.dtype)  # logarithms in bfloat16 would be too rough
    return SIGMOID.divergence(student_NC / temperature, teacher_NC / temperature) * temperature**2


def relative_error(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:  # noqa: ARG001
    """The squared error of values, in parts of the squares of the teacher's on the same images."""
    return (student_NC - teacher_NC).square().sum() / teacher_NC.square().sum().clamp(min=LEAST)


LEAST = 1e-12
LOSSES: dict[str, Loss] = {"kl": kl, "mse": mse, "ce": ce}
"""Of outputs that are scores of classes, of which one is right."""
OTHERS: dict[str, Loss] = {"sigmoid": binary_kl, "values": relative_error}
"""What `kl` is of other outputs, by their name (`requant.outputs`)."""


def loss_of(loss: str, temperature: float, outputs: str) -> Loss:
    """The loss by its name, for outputs of this kind.

    Raises:
        ConfigError: for unknown names, and for a loss or a temperature that such outputs have not.
        UserError: for no temperature.

    """
    if not 0 < temperature < math.inf:
        raise UserError(f"temperature={temperature}: must be above 0 and finite")
    choice("loss", loss, tuple(LOSSES))
    kind = meaning(outputs)
    if kind is SOFTMAX:
        return LOSSES[loss]
    if loss != "kl" or (kind is VALUES and temperature != 1):
        given = f"loss={loss}" if loss != "kl" else f"temperature={temperature}"
        raise ConfigError(f"{given} is for outputs=softmax, not {outputs}: leave it out")
    return OTHERS[outputs]
