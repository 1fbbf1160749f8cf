"""What a training step minimises. None of these is an nn.Module: the teacher stays out of every checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from requant.outputs import SOFTMAX, meaning
from requant.retraining.losses import loss_of


class MatchTeacher:
    """The student's outputs against the teacher's, both computed on the batch: images (N, C, H, W), no labels.

    The teacher must be in eval mode.
    """

    def __init__(self, teacher: nn.Module, loss: str = "kl", temperature: float = 1.0, outputs: str = "softmax"):
        self.teacher = teacher
        self.loss, self.kind = loss_of(loss, temperature, outputs), meaning(outputs)
        self.temperature = temperature

    def __call__(self, student: nn.Module, images_NCHW: Tensor) -> Tensor:
        """The mean loss of the batch."""
        assert not self.teacher.training, "the teacher must stay in eval mode"
        with torch.no_grad():
            teacher_NC = self.kind.of(self.teacher.to(images_NCHW.device), images_NCHW)
        return self.loss(self.kind.of(student, images_NCHW), teacher_NC, self.temperature)


class MatchOutputs:
    """The student's outputs against the teacher's, computed beforehand: a batch is (images, teacher's outputs)."""

    def __init__(self, loss: str = "kl", temperature: float = 1.0, outputs: str = "softmax"):
        self.loss, self.kind = loss_of(loss, temperature, outputs), meaning(outputs)
        self.temperature = temperature

    def __call__(self, student: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean loss of the batch."""
        images_NCHW, teacher_NC = batch
        return self.loss(self.kind.of(student, images_NCHW), teacher_NC, self.temperature)


@dataclass
class MatchLabels:
    """Cross-entropy against labels: a batch is (images, class indices)."""

    label_smoothing: float = 0.0

    def __call__(self, student: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean loss of the batch."""
        images_NCHW, labels_N = batch
        scores_NC = SOFTMAX.of(student, images_NCHW)
        return F.cross_entropy(scores_NC, labels_N, label_smoothing=self.label_smoothing)


Objective = Callable[[nn.Module, Any], Tensor]
"""The mean loss of a student on a batch."""
