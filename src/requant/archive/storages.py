"""The ways of storing tensors, by name.

Each is a module that can `write` a new file's tensors, and `read` them; both also say how many bytes each takes.
"""

from types import ModuleType

from requant.archive import entropy, entropy_1, gzipped, packed

STORAGES = ("gzip", "packed", "entropy")
"""The names that `save` knows."""

BY_NAME = {"gzip": gzipped, "packed": packed, "entropy": entropy}
FIRST_VERSION = {"gzip": 1, "packed": 1, "entropy": 5}
"""The format version from which they are as they are now."""


def reading(storage: str, version: int) -> ModuleType:
    """The module that reads a storage of a format version."""
    return entropy_1 if (storage, version) == ("entropy", 1) else BY_NAME[storage]
