"""The ways of storing tensors, by name; each can write, read and measure."""

from requant.archive import gzipped, packed

STORAGES = ("gzip", "packed")
"""The names that `save` knows."""

BY_NAME = {"gzip": gzipped, "packed": packed}
