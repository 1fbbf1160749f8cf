"""Images and their labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from requant.data.protocols import UnlabeledImages


class LabelledPairs:
    """Images with the class index of each, int64 (N,), or with what else is to be matched (`requant.outputs`)."""

    def __init__(self, images: UnlabeledImages, labels: Tensor) -> None:
        assert len(images) == len(labels), f"{len(images)} images, {len(labels)} labels"
        self.images = images
        self.labels = labels
        self.fixed = images.fixed
        self.skipped = images.skipped

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index % len(self)]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        items = torch.as_tensor(indices, dtype=torch.int64) % len(self)
        return self.images.__getitems__(indices), self.labels[items]
