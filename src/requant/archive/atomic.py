"""Replace a file by a new one, or leave it as it is."""

import os
from contextlib import suppress
from pathlib import Path

from requant.errors import ArchiveError


def replace_file(path: Path, content: memoryview) -> None:
    """Write a temporary file beside `path`, sync it, rename it over `path`, sync the folder.

    Raises:
        ArchiveError: when writing fails; the temporary file is removed and `path` is as it was.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_synced(temporary, content)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ArchiveError(
            f"cannot write {path} ({error.strerror or error}): {len(content)} bytes are needed in {path.parent}"
        ) from error
    finally:
        with suppress(OSError):  # it is gone already after the rename, and never was where its folder is none
            temporary.unlink()


def _write_synced(path: Path, content: memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
