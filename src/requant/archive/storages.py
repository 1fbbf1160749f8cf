"""The ways of storing tensors, by name.

Each is a module that can `write` a new file's tensors, and `read` them; both also say how many bytes each takes.
"""

from collections.abc import Sequence
from types import ModuleType

from requant.archive import entropy, entropy_1, gzipped, packed
from requant.archive.manifest import Entry

STORAGES = ("gzip", "packed", "entropy")
"""The names that `save` knows."""

BY_NAME = {"gzip": gzipped, "packed": packed, "entropy": entropy}
FIRST_VERSION = {"gzip": 1, "packed": 1, "entropy": entropy.SAYS_LANES}
"""The format version from which they are as they are now, but for what is on a trellis."""


def versions(storage: str, entries: Sequence[Entry]) -> list[int]:
    """The format versions in which a storage may hold such tensors, the one that is written last."""
    needed = max((entry.version for entry in entries), default=1)
    found = [needed, max(needed, FIRST_VERSION[storage])]
    if storage == "entropy" and any(entry.on_trellis for entry in entries):
        found.append(entropy.LOW_BITS_FIRST)
    return found


def reading(storage: str, version: int) -> ModuleType:
    """The module that reads a storage of a format version."""
    return entropy_1 if (storage, version) == ("entropy", 1) else BY_NAME[storage]
