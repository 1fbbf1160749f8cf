"""Networks by name: built, fed, filled with weights and identified."""

from requant.models.architecture import Architecture
from requant.models.hugging_face import described
from requant.models.own import make
from requant.models.registry import build, build_described, example_input, preprocessing
from requant.models.weights import checksum, load_weights, save_weights

__all__ = [
    "Architecture",
    "build",
    "build_described",
    "checksum",
    "described",
    "example_input",
    "load_weights",
    "make",
    "preprocessing",
    "save_weights",
]
