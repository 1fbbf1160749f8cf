"""What an archive holds, between model and file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from requant.archive.report import ArchiveReport
from requant.codebook import Codebook
from requant.codebook_forms import AnyCodebook

Contents = Mapping[str, Codebook | NDArray[Any]]
"""Tensors by name: clustered ones as codebooks, the others as arrays."""


@dataclass(frozen=True)
class Archive:
    """An archive in memory.

    Attributes:
        storage: how the tensors are stored, one of `STORAGES`.
        architecture: from which the network is built again; None where it was not given.
        provenance: where the network comes from, as `save` was told.
        codebooks: the clustered tensors by name.
        dense: the other tensors by name.
        report: the file's size by part.
        format: version of the file's format.

    """

    storage: str
    architecture: dict[str, Any] | None
    provenance: dict[str, Any] | None
    codebooks: dict[str, AnyCodebook]
    dense: dict[str, NDArray[Any]]
    report: ArchiveReport
    format: int
