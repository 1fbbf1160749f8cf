"""requant: cluster a network's weights, store it small, retrain it without labels.

The public names are imported on first use, so that drawing a figure or starting a sweep need not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Codebook": "requant.codebook",
    "Movement": "requant.retraining",
    "Recipe": "requant.recipe",
    "cluster": "requant.clustering",
    "compress": "requant.compression",
    "compress_to": "requant.automatic",
    "evaluate": "requant.evaluation",
    "load": "requant.archive",
    "read": "requant.archive",
    "reconstruct": "requant.automatic",
    "retrain": "requant.retraining",
    "retrain_codebooks": "requant.retraining",
    "save": "requant.archive",
}

__all__ = [
    "Codebook",
    "Movement",
    "Recipe",
    "cluster",
    "compress",
    "compress_to",
    "evaluate",
    "load",
    "read",
    "reconstruct",
    "retrain",
    "retrain_codebooks",
    "save",
]

if TYPE_CHECKING:
    from requant.archive import load, read, save
    from requant.automatic import compress_to, reconstruct
    from requant.clustering import cluster
    from requant.codebook import Codebook
    from requant.compression import compress
    from requant.evaluation import evaluate
    from requant.recipe import Recipe
    from requant.retraining import Movement, retrain, retrain_codebooks


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'requant' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
