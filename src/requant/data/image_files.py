"""Image files as an evaluation sees them, decoded one by one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from requant.data.decoding import as_tensor, decoded
from requant.data.pixels import evaluation_view, normalised
from requant.preprocessing import Preprocessing


class FileImages:
    """Each file decoded, resized and cut to its centre; see `evaluation_view`.

    Args:
        paths: readable image files.
        preprocessing: what the network expects.
        skipped: files that could not be read.
    """

    fixed = True

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing, skipped: tuple[str, ...] = ()) -> None:
        self.paths = paths
        self.preprocessing = preprocessing
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Tensor:
        images = torch.stack([self._view(self.paths[index % len(self)]) for index in indices])
        return normalised(images, self.preprocessing)

    def _view(self, path: Path) -> Tensor:
        return as_tensor(evaluation_view(decoded(path, self.preprocessing.channels), self.preprocessing))
