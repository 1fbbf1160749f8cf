"""Whether a training did harm is said by images that reconstruction did not fit."""

import torch

from requant.reconstruction import batches_of
from requant.retraining.harm import COMPARED, compared


class Numbered:
    """Images that are their own numbers."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        return torch.tensor(indices)


def test_the_last_images_are_compared_in_batches() -> None:
    found = compared(Numbered(2000), 100)
    assert [len(batch) for batch in found] == [100] * 5 + [12]
    assert torch.equal(torch.cat(found), torch.arange(2000 - COMPARED, 2000))


def test_none_of_them_is_what_a_reconstruction_looks_at_where_there_are_enough() -> None:
    seen = torch.cat(batches_of(Numbered(2000), 1024, 32))
    assert not set(seen.tolist()) & set(torch.cat(compared(Numbered(2000), 32)).tolist())


def test_of_few_images_all_are_compared() -> None:
    assert torch.equal(torch.cat(compared(Numbered(70), 32)), torch.arange(70))
