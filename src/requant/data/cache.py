"""The folder for what was downloaded or converted once."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$REQUANT_CACHE`, else `$XDG_CACHE_HOME/requant`, else `~/.cache/requant`."""
    if chosen := os.environ.get("REQUANT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "requant"
