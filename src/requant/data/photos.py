"""Photographs that scikit-image and scikit-learn carry in their wheels: there on every machine, without a network."""

from importlib.util import find_spec
from pathlib import Path

from requant.errors import DataError

# Chosen by eye: no drawings, text, silhouettes, and one of a stereo pair.
_PHOTOGRAPHS = {
    "skimage": (
        "data/astronaut.png",
        "data/brick.png",
        "data/camera.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/coins.png",
        "data/grass.png",
        "data/gravel.png",
        "data/hubble_deep_field.jpg",
        "data/motorcycle_left.png",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def paths() -> list[Path]:
    """The photographs' files; asking the packages for the images instead could start a download.

    Raises:
        DataError: the installed packages lack one.
    """
    found = [_package(name) / file for name, files in _PHOTOGRAPHS.items() for file in files]
    if missing := [str(path) for path in found if not path.exists()]:
        raise DataError(f"{', '.join(missing)} is missing; reinstall scikit-image and scikit-learn, or use a folder")
    return found


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None, f"{name} is a dependency"
    assert spec.origin is not None, f"{name} has an __init__.py"
    return Path(spec.origin).parent
