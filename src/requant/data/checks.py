"""What the settings of a set of images may be."""

from collections.abc import Collection

from requant.data.pixels import interpolation
from requant.errors import ConfigError
from requant.preprocessing import Preprocessing
from requant.suggest import did_you_mean

_EMBEDDED = ("digits", "mnist5k", "photos")


def check_name(name: str, known: Collection[str], setting: str) -> None:
    """Refuse a name that does not exist, with the nearest that does."""
    if name not in known:
        raise ConfigError(f"{setting} is {name!r}{did_you_mean(name, sorted(known))}")


def check_shared(name: str, root: str | None, limit: int | None, preprocessing: Preprocessing, group: str) -> None:
    """Refuse what labelled and unlabeled sets cannot do alike."""
    interpolation(preprocessing)
    if limit is not None and limit < 1:
        raise ConfigError(f"{group}.limit is {limit}; set at least 1, or leave it out")
    if root is not None and name in _EMBEDDED:
        raise ConfigError(f"{name} comes with the packages and has no folder; leave {group}.root out")


def check_augment(augment: str, known: Collection[str], split: str) -> None:
    """Refuse an augmentation that does not exist, and any of test images."""
    check_name(augment, known, "augment")
    if split == "test" and augment != "none":
        raise ConfigError(f"augment is {augment!r} for test images, which are measured as they are; set none")


def check_crops(crops: int | None, scale: tuple[float, float]) -> None:
    """Refuse no crops, and shares of the area outside (0, 1]."""
    if crops is not None and crops < 1:
        raise ConfigError(f"crops is {crops}; set at least 1, or leave it out")
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ConfigError(f"scale is {tuple(scale)}; set two shares of the area, 0 < least <= greatest <= 1")
