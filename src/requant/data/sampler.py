"""The order in which a run visits its images, the same for one process and for many."""

from collections.abc import Iterator

import torch.distributed
from torch.utils.data import Sampler

from requant.data.randomness import permutation


class EpochSampler(Sampler[int]):
    """Yields `epoch * length + item`: the epoch travels in the index, and the data set needs no other clock.

    The ranks of a distributed run take every world-th item of the one order, so that the union of their b-th batches is
    a single process's b-th batch of world times the size. Rank and world size are asked for when iteration starts.

    Args:
        length: number of items.
        batch_size: of each rank.
        shuffle: a new order each epoch, for training: up to world - 1 items at the end are left out, so that all ranks
            take equally many steps, and one more of each rank where its last batch would be of one. Without it items
            come in order, always as epoch 0, and none is left out or repeated: for exact counts.
        seed: of the orders.
    """

    def __init__(self, length: int, batch_size: int, shuffle: bool, seed: int = 0) -> None:
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the random choices of the next iteration; Lightning calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(self._order()[self._share()])

    def __len__(self) -> int:
        return len(range(self.length)[self._share()])

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.length))
        order: list[int] = (self.epoch * self.length + permutation(self.length, self.seed, self.epoch)).tolist()
        return order

    def _share(self) -> slice:
        rank, world = _place()
        if not self.shuffle:
            return slice(rank, self.length, world)
        each = self.length // world
        alone = each > 1 and each % self.batch_size == 1
        return slice(rank, world * (each - alone), world)


def _place() -> tuple[int, int]:
    """Rank, and number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
