"""Batches of a data set, through torch's DataLoader."""

from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from requant.data.protocols import Batched
from requant.data.sampler import EpochSampler
from requant.errors import ConfigError

Batch = TypeVar("Batch")


def loader(
    dataset: Batched,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int = 0,
    workers: int = 0,
    shard: bool = True,
) -> DataLoader[Any]:
    """Batches of `batch_size` images (on each process of a distributed run); neither reads nor moves the global seed.

    Args:
        dataset: from `labelled` or `unlabeled`, or one that reads their indices as they do.
        batch_size: images a batch, on each process.
        shuffle: a new order each epoch, equally many items on every process: for training. A last batch of one image is
            left out: batch norm has no deviation of one. Without it every item comes exactly once, in order.
        seed: of the order.
        workers: processes that prepare batches beside this one; the result does not depend on it.
        shard: in a distributed run, give each process its share. Final figures come from one process that sees all.

    Raises:
        ConfigError: a batch size or number of workers that is too small, or no batch at all.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size is {batch_size} and workers {workers}; set at least 1 and at least 0")
    sampler = EpochSampler(len(dataset), batch_size, shuffle, seed) if shard else range(len(dataset))
    return DataLoader(
        cast("Dataset[Any]", dataset),
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_as_it_is,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # else every epoch draws from the global generator
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch
