"""What the paper reports: Thonglek et al., IJCNN 2020; ImageNet models, CIFAR as the unlabeled images, 4 V100."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Reported:
    """One of the paper's two cases; accuracies are top-1 in percent, all biases at k = 1.

    Attributes:
        layers: whose weights are clustered.
        centroids: k of those.
        size: of the file, in percent of the original's.
        teacher: the original network.
        quantized: before retraining.
        proposed: retrained on unlabeled images.
        conventional: retrained with labels.
        time_saved: of the proposed retraining against the conventional one, in percent.

    """

    layers: str
    centroids: int
    size: float
    teacher: float
    quantized: float
    proposed: float
    conventional: float
    time_saved: float


VGG16 = Reported("14-15", 32, 100 - 81.10, 75.12, 69.88, 74.78, 74.89, 85.46)
RESNET50 = Reported("13-49", 256, 100 - 52.45, 75.80, 65.22, 75.09, 75.12, 82.49)
Case = tuple[pd.DataFrame, Reported]
"""Rows of one network, and what the paper reports of it."""
