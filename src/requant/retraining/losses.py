"""Losses between the output vectors of student and teacher: logits of shape (N, C), the mean over N."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, float], Tensor]


def kl(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the student from the teacher, KL(p_teacher || p_student), in nats.

    Both are softened by the temperature T and the result is scaled by T^2, so that gradients keep their size
    (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.1).
    """
    student, teacher = student_NC / temperature, teacher_NC / temperature
    divergence = F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
    return divergence * temperature**2


def mse(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:
    """Squared distance of the probability vectors (summed over classes)."""
    difference = (student_NC / temperature).softmax(1) - (teacher_NC / temperature).softmax(1)
    return difference.square().sum(1).mean()


def ce(student_NC: Tensor, teacher_NC: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy against the teacher's probabilities: `kl` plus the teacher's entropy; the same gradient."""
    return F.cross_entropy(student_NC / temperature, (teacher_NC / temperature).softmax(1)) * temperature**2


LOSSES: dict[str, Loss] = {"kl": kl, "mse": mse, "ce": ce}
