"""Where an archive's bytes go."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PARTS = ("indices", "codebooks", "dense", "overhead")


@dataclass(frozen=True)
class TensorBytes:
    """What one tensor takes in the file."""

    indices: int = 0
    codebooks: int = 0
    dense: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.indices + self.codebooks + self.dense


@dataclass(frozen=True)
class ArchiveReport:
    """The measured size of a file.

    Attributes:
        path: the file.
        bytes: its size on disk.
        parts: bytes by `indices`, `codebooks` (the centroids), `dense` (tensors that are not clustered) and `overhead`
            (header, container, manifest); they sum to `bytes`.
        tensors: bytes by tensor; they sum to `bytes` less the overhead.

    """

    path: Path
    bytes: int
    parts: dict[str, int]
    tensors: dict[str, int]


def summarize(path: Path, size: int, tensors: Mapping[str, TensorBytes]) -> ArchiveReport:
    """The report on a file of `size` bytes that holds `tensors`."""
    parts = {part: sum(getattr(tensor, part) for tensor in tensors.values()) for part in PARTS[:-1]}
    parts["overhead"] = size - sum(parts.values())
    return ArchiveReport(path, size, parts, {name: tensor.total for name, tensor in tensors.items()})
