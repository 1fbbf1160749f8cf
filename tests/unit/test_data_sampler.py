import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from requant import data
from requant.data.arrays import ArrayImages
from requant.errors import ConfigError
from requant.preprocessing import Preprocessing

SMALL = Preprocessing(8, 8, (0.5,), (0.5,))


@contextmanager
def process(rank: int, world: int) -> Iterator[None]:
    """As if this were one process of a distributed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_rank", lambda: rank)
        patch.setattr(torch.distributed, "get_world_size", lambda: world)
        yield


def shares(sampler: data.EpochSampler, world: int) -> list[list[int]]:
    parts = []
    for rank in range(world):
        with process(rank, world):
            parts.append(list(sampler))
            assert len(sampler) == len(parts[-1])
    return parts


def batches(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


@given(st.integers(1, 60), st.integers(0, 9), st.integers(0, 5))
def test_an_index_carries_the_epoch_and_each_item_comes_once(length: int, seed: int, epoch: int) -> None:
    sampler = data.EpochSampler(length, 1, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    epochs, items = zip(*(divmod(index, length) for index in sampler), strict=True)
    assert set(epochs) == {epoch}
    assert sorted(items) == list(range(length))


@given(st.integers(1, 60), st.integers(0, 5))
def test_without_shuffling_the_order_is_plain_and_the_epoch_is_0(length: int, epoch: int) -> None:
    sampler = data.EpochSampler(length, 1, shuffle=False)
    sampler.set_epoch(epoch)
    assert list(sampler) == list(range(length))


@given(st.integers(1, 200), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_the_ranks_batches_together_are_a_single_processs_batches(
    length: int, world: int, size: int, epoch: int
) -> None:
    sampler = data.EpochSampler(length, 1, shuffle=True, seed=1)
    sampler.set_epoch(epoch)
    single = batches(list(sampler), size * world)
    ranks = [batches(part, size) for part in shares(sampler, world)]
    assert len({sum(map(len, rank)) for rank in ranks}) == 1, "ranks take equally many items"
    for number, together in enumerate(zip(*ranks, strict=True)):
        union = [index for batch in together for index in batch]
        whole = set(single[number][: len(single[number]) // world * world])
        assert len(union) == len(set(union))
        assert set(union) == whole


@given(st.integers(2, 400), st.integers(1, 4), st.integers(2, 60))
def test_only_a_batch_of_one_is_left_out_on_any_number_of_ranks(length: int, world: int, size: int) -> None:
    sampler = data.EpochSampler(length, size, shuffle=True)
    for part in shares(sampler, world):
        each = length // world
        assert len(part) == each - (each > 1 and each % size == 1)
        assert each <= 1 or len(batches(part, size)[-1]) > 1


def test_the_number_of_ranks_may_be_set_after_the_loader_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = data.loader(images(385), 128, shuffle=True)
    monkeypatch.setattr("requant.data.sampler._place", lambda: (0, 2))
    assert [len(batch) for batch in visited(loader, 0)] == [128, 64]


@given(st.integers(1, 200), st.integers(1, 5))
def test_evaluation_is_sharded_without_repeating_or_losing_an_item(length: int, world: int) -> None:
    parts = shares(data.EpochSampler(length, 1, shuffle=False), world)
    assert sorted(index for part in parts for index in part) == list(range(length))


def images(count: int = 37, augment: str = "flip_shift", seed: int = 3) -> ArrayImages:
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ArrayImages(pixels, SMALL, augment, seed)


def visited(loader: torch.utils.data.DataLoader, epoch: int) -> list[Tensor]:
    loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_do_not_depend_on_workers(shuffle: bool) -> None:
    alone = data.loader(images(), 5, shuffle=shuffle, seed=2)
    helped = data.loader(images(), 5, shuffle=shuffle, seed=2, workers=2)
    for epoch in (0, 1):
        for one, other in zip(visited(alone, epoch), visited(helped, epoch), strict=True):
            assert torch.equal(one, other)


def test_epochs_differ_and_an_epoch_can_be_visited_again() -> None:
    loader = data.loader(images(), 37, shuffle=True)
    first, second, again = visited(loader, 0)[0], visited(loader, 1)[0], visited(loader, 0)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    visited(data.loader(images(), 5, shuffle=True), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_set_goes_to_a_process_as_a_pickle() -> None:
    copy = pickle.loads(pickle.dumps(images()))  # noqa: S301 - our own bytes
    assert torch.equal(copy[40], images()[40])


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 5, "workers": -1}])
def test_a_wrong_setting_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="batch_size is"):
        data.loader(images(), shuffle=True, **wrong)


def test_a_last_batch_of_one_image_is_left_out_of_training_only() -> None:
    assert [len(batch) for batch in data.loader(images(), 18, shuffle=True)] == [18, 18]
    assert [len(batch) for batch in data.loader(images(), 18, shuffle=False)] == [18, 18, 1]
    assert [len(batch) for batch in data.loader(images(), 20, shuffle=True)] == [20, 17]


class Watcher(pl.LightningModule):
    """Keeps the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def training_step(self, batch: Tensor) -> Tensor:
        self.seen.append(batch)
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_sets_the_epoch(tmp_path: Path) -> None:
    watcher = Watcher()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        log_every_n_steps=1,
    )
    trainer.fit(watcher, data.loader(images(), 37, shuffle=True))
    expected = data.loader(images(), 37, shuffle=True)
    assert torch.equal(watcher.seen[0], visited(expected, 0)[0])
    assert torch.equal(watcher.seen[1], visited(expected, 1)[0])
