"""A folder's identity without its place: the same files elsewhere are the same data."""

import hashlib
from pathlib import Path

from requant.data.files import files_below
from requant.errors import DataError


def fingerprint(root: str, dated: bool = False) -> str:
    """SHA-256 (hex) over the sorted relative paths and byte sizes of the files under `root`, or of one file.

    `dated` adds when each was changed last, for what must notice a file that was replaced by one of its size.

    Raises:
        DataError: nothing is there.
    """
    path = Path(root).expanduser()
    if not path.exists():
        raise DataError(f"there is no file or folder {root}; check the path")
    files = [path] if path.is_file() else files_below(path)
    base = path.parent if path.is_file() else path
    entries = sorted((file.relative_to(base).as_posix(), *_facts(file, dated)) for file in files)
    return hashlib.sha256(repr(entries).encode()).hexdigest()


def _facts(file: Path, dated: bool) -> tuple[int, ...]:
    status = file.stat()
    return (status.st_size, status.st_mtime_ns) if dated else (status.st_size,)
