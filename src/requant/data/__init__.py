"""Labelled and unlabeled images, in batches a network takes as they are."""

from requant.data.fingerprints import fingerprint
from requant.data.loading import loader
from requant.data.pairs import LabelledPairs
from requant.data.protocols import LabelledImages, Part, Split, UnlabeledImages
from requant.data.sampler import EpochSampler
from requant.data.sources import NO_LABELS, classes, cuts_crops, has_training_images, labelled, unlabeled

__all__ = [
    "NO_LABELS",
    "EpochSampler",
    "LabelledImages",
    "LabelledPairs",
    "Part",
    "Split",
    "UnlabeledImages",
    "classes",
    "cuts_crops",
    "fingerprint",
    "has_training_images",
    "labelled",
    "loader",
    "unlabeled",
]
