"""The description from which a network is built again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeGuard

from requant.errors import ConfigError
from requant.outputs import SOFTMAX, meaning
from requant.suggest import did_you_mean

# An archive from elsewhere chooses these numbers: bounds keep it from asking for all of the memory.
MAX_CLASSES = 1_000_000
IMAGE_SIZES = (8, 4096)
MAX_WIDTH = 16.0
MAX_CONFIG = 100_000


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build the network again, without its weights (stored in every archive as JSON).

    Attributes:
        name: a name of `requant.models.registry.FAMILIES`, `torchvision:<name>`, `timm:<name>`,
            `huggingface:<folder>` or `own:<file.py>:<function>`.
        classes: length of the output vector, or of that of each position; at least 2 where they are scores of classes.
        channels: of the input images: 3 (RGB) or 1 (grey).
        image_size: height and width of the input images, in pixels.
        width: factor on the channel counts; only for the CIFAR forms and `vgg_small`.
        mean: of each channel of the images, in units of the [0, 1] intensity range; None: what the published weights
            (of CIFAR forms CIFAR-10's training set) were normalised with.
        std: the standard deviations that go with it.
        outputs: what the outputs are: softmax (scores of classes), sigmoid or values (`requant.outputs`).
        config: of Hugging Face's networks: what `requant.models.described` found in their folder, as JSON.

    Raises:
        ConfigError: a value of the wrong type or out of its range.
    """

    name: str
    classes: int = 1000
    channels: int = 3
    image_size: int = 224
    width: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    outputs: str = SOFTMAX.name
    config: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"model.name must be the name of a network, not {self.name!r}")
        meaning(self.outputs)
        _require_integer("classes", self.classes, 2 if self.outputs == SOFTMAX.name else 1, MAX_CLASSES)
        _require_integer("channels", self.channels, 1, 3)
        if self.channels == 2:
            raise ConfigError("model.channels must be 3 (RGB) or 1 (grey), not 2")
        _require_integer("image_size", self.image_size, *IMAGE_SIZES)
        _require_width(self.width)
        _require_statistics(self.mean, self.std, self.channels)
        if self.config is not None and not (isinstance(self.config, str) and len(self.config) <= MAX_CONFIG):
            raise ConfigError(f"model.config must be JSON of at most {MAX_CONFIG:,} characters")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; `from_dict` turns them back. The last four only where they are given."""
        plain = asdict(self) | {"width": float(self.width)}
        for key in ("mean", "std"):
            plain[key] = None if plain[key] is None else [float(value) for value in plain[key]]
        if self.outputs == SOFTMAX.name:
            del plain["outputs"]
        return {key: value for key, value in plain.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Architecture":
        """The architecture that `to_dict` described.

        Raises:
            ConfigError: an unknown or missing key, or a value that the class refuses.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"an architecture is a mapping with the key 'name', not {type(data).__name__}")
        known = [field.name for field in fields(cls)]
        for key in data:
            if key not in known:
                raise ConfigError(f"an architecture has no key {key!r}{did_you_mean(key, known)}")
        if "name" not in data:
            raise ConfigError("an architecture needs the key 'name': which network it is")
        statistics = {key: tuple(data[key]) for key in ("mean", "std") if isinstance(data.get(key), list)}
        return cls(**{**data, **statistics})


def _require_statistics(mean: object, std: object, channels: int) -> None:
    """Both or none; a number for each channel."""
    if mean is None and std is None:
        return
    for key, values in (("mean", mean), ("std", std)):
        if not isinstance(values, tuple) or len(values) != channels or not all(map(_is_number, values)):
            raise ConfigError(
                f"model.mean and model.std must have {channels} numbers each, and model.{key} is {values!r}"
            )
        if not all(0 <= value <= 1 for value in values) or (key == "std" and not all(values)):
            raise ConfigError(
                f"model.{key}={list(values)}: must be of images from 0 to 1 (those of bytes divided by 255)"
            )


def _require_integer(key: str, value: object, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ConfigError(f"model.{key} must be an integer from {lowest} to {highest}, not {value!r}")


def _require_width(value: object) -> None:
    # NaN fails the comparison.
    if not _is_number(value) or not 0 < value <= MAX_WIDTH:
        raise ConfigError(f"model.width must be a number above 0 and up to {MAX_WIDTH:g}, not {value!r}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
