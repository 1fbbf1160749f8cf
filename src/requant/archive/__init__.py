"""A compressed network as one file: save, load, read."""

from requant.archive.content import Archive
from requant.archive.loading import load, read
from requant.archive.report import ArchiveReport
from requant.archive.saving import file_size, save
from requant.archive.shortening import shortened
from requant.archive.storages import STORAGES

__all__ = ["STORAGES", "Archive", "ArchiveReport", "file_size", "load", "read", "save", "shortened"]
