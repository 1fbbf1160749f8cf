"""The first 512 bytes of an archive: what it is, how long, and the checksum of the rest.

    offset  bytes  content
    0       8      "REQUANT" and a zero byte
    8       4      format version (1 to 6), unsigned, little-endian
    12      8      length of the whole file in bytes, unsigned, little-endian
    20      32     SHA-256 of all bytes from offset 512
    52      460    zeros

They are an HDF5 user block: HDF5 tools find their own signature at offset 512 and open the file as it is.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from requant.errors import ArchiveError

SIZE = 512
MAGIC = b"REQUANT\0"
NEWEST = 6
"""The newest format version; files that need nothing of it are written as an older one."""

_FIELDS = struct.Struct("<8sIQ32s")
_BLOCK = 1 << 20
_FOREIGN = (
    (b"\x89HDF\r\n\x1a\n", "a plain HDF5 file that requant did not write"),
    (b"PK\x03\x04", "a zip file, as torch.save writes"),
    (b"\x80", "a Python pickle, which is never read"),
    (b"\x1f\x8b", "a gzip file"),
)


def seal(body: memoryview, version: int) -> bytes:
    """The envelope of a file of this format version whose bytes from 512 on are `body`."""
    fields = _FIELDS.pack(MAGIC, version, SIZE + len(body), hashlib.sha256(body).digest())
    return fields.ljust(SIZE, b"\0")


def verify(file: BinaryIO, path: Path) -> tuple[int, int]:
    """Check the envelope and the checksum of an open file.

    Returns:
        The format version, and the file's length in bytes.

    Raises:
        ArchiveError: foreign, of a newer format, truncated or damaged.

    """
    envelope = file.read(SIZE)
    if not envelope.startswith(MAGIC):
        raise ArchiveError(f"{path} is no requant archive: it {_what_it_looks_like(envelope)}")
    if len(envelope) < SIZE:
        raise ArchiveError(f"{path} is truncated: it ends after {len(envelope)} bytes, in its header; copy it again")
    _, version, length, digest = _FIELDS.unpack_from(envelope)
    if version > NEWEST:
        raise ArchiveError(
            f"{path} was written by a newer requant (format {version}; this one reads up to {NEWEST}): upgrade requant"
        )
    _check_body(file, path, length, digest)
    if version < 1 or any(envelope[_FIELDS.size :]):
        raise ArchiveError(f"{path} is damaged in its header; copy or make it again")
    return version, length


def _check_body(file: BinaryIO, path: Path, length: int, digest: bytes) -> None:
    checksum, found = hashlib.sha256(), SIZE
    for block in _blocks(file):
        checksum.update(block)
        found += len(block)
    if found != length:
        state = "truncated" if found < length else "too long"
        raise ArchiveError(f"{path} is {state}: {length} bytes expected, {found} found; copy it again")
    if checksum.digest() != digest:
        raise ArchiveError(f"{path} is damaged: its checksum does not match its content; copy or make it again")


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _what_it_looks_like(start: bytes) -> str:
    if not start:
        return "is empty"
    if start[8:9] == b"{":
        return "looks like a safetensors file"
    kind = next((kind for signature, kind in _FOREIGN if start.startswith(signature)), None)
    return f"looks like {kind}" if kind else f"starts with {start[:8]!r}"
