"""The ways of storing tensors, by name; each can write, read and measure."""

from requant.archive import entropy, gzipped, packed

STORAGES = ("gzip", "packed", "entropy")
"""The names that `save` knows."""

BY_NAME = {"gzip": gzipped, "packed": packed, "entropy": entropy}
