"""Networks by name: built, fed, filled with weights and identified."""

from requant.models.architecture import Architecture
from requant.models.registry import build, example_input, preprocessing
from requant.models.weights import checksum, load_weights, save_weights

__all__ = [
    "Architecture",
    "build",
    "checksum",
    "example_input",
    "load_weights",
    "preprocessing",
    "save_weights",
]
