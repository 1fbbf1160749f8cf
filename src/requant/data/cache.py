"""The folder for what was downloaded or converted once."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """`$REQUANT_CACHE`, else `$XDG_CACHE_HOME/requant`, else `~/.cache/requant`."""
    if chosen := os.environ.get("REQUANT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "requant"


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Gives a file to write; it becomes `path` when the block ends well, and is removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)
