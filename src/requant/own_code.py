"""Names of networks that are made by somebody's own code: own:<file.py>:<function>, own:<package.module>:<function>.

An archive holds own:<function>, without the place.
"""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from requant.errors import ConfigError

OWN = "own"


def is_own(name: str) -> bool:
    """Whether a network of this name is made by code from elsewhere."""
    return name.partition(":")[0] == OWN


def title(name: str) -> str:
    """The name without the place of the code."""
    return f"{OWN}:{place_and_function(name)[1]}"


def place_and_function(name: str) -> tuple[str, str]:
    """Where the code is, which is empty in archives, and the function.

    >>> place_and_function("own:nets/mine.py:make")
    ('nets/mine.py', 'make')
    """
    place, _, function = name.partition(":")[2].rpartition(":")
    return place, function


def source(name: str) -> Path:
    """The file of the code.

    Raises:
        ConfigError: where there is none.

    """
    place = place_and_function(name)[0]
    if not place:
        raise ConfigError(f"{name} does not say where the network's code is: name it own:<file.py>:<function>")
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise ConfigError(f"{name}: there is no file {path}")
        return path
    try:
        found = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise ConfigError(f"{name}: there is no module {place}: install it, or name a file: own:<file.py>:<function>")
    return Path(found.origin)


def by_content(name: str) -> str:
    """The name with the sha256 of the code's file in its place: what results depend on.

    Raises:
        ConfigError: where the code is not found.

    """
    return f"{OWN}:{_digest(source(name))}:{place_and_function(name)[1]}"


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
