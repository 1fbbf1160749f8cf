"""Write files so that a kill or a full disk leaves either the old one or the new one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from requant.progress import console


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file to write, beside `path`; when the block ends well it is brought to the disk and becomes `path`.

    When the block fails the file is removed and `path` is as it was. The folder is made where it is missing. Who may
    read the file follows from the umask, as for any new file, whatever wrote it (safetensors leaves it to its owner).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        yield unfinished
        unfinished.chmod(mode)
        _sync(unfinished)
        unfinished.replace(path)
        _sync(path.parent)
    finally:
        with suppress(OSError):  # after the rename it is gone already
            unfinished.unlink()


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes had begun to write below a folder that nobody else works in (see `replacing`)."""
    for unfinished in folder.rglob(".*.tmp"):
        unfinished.unlink()


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold a lock file; while another process holds it, say so and wait. A killed process holds nothing.

    The folder is made where it is missing; the file stays.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        console.print(f"Another process works on {lock.parent}; waiting for it (Ctrl-C to give up).", soft_wrap=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
