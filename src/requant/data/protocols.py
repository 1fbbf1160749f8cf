"""What every set of images offers: items by index, and whole batches by a list of indices."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from torch import Tensor

Split = Literal["train", "test"]
Part = Literal["all", "seen", "held_out"]


class Batched(Protocol):
    """The part of a data set that a loader needs."""

    def __len__(self) -> int: ...
    def __getitems__(self, indices: list[int]) -> Any: ...


class UnlabeledImages(Protocol):
    """Images without labels, float32 (N, C, H, W), normalised.

    An index is `epoch * len(self) + item`: random choices depend on the seed, the epoch and the item alone.
    """

    fixed: bool
    """True when an item's pixels do not depend on the epoch."""
    skipped: tuple[str, ...]
    """Files that are there but could not be read."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...
    def __getitems__(self, indices: Sequence[int]) -> Tensor: ...


class LabelledImages(Protocol):
    """Images as in `UnlabeledImages`, each with its class index, int64 (N,)."""

    fixed: bool
    """True when an item's pixels do not depend on the epoch."""
    skipped: tuple[str, ...]
    """Files that are there but could not be read."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...
    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]: ...
