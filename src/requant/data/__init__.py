"""Labelled and unlabeled images, in batches a network takes as they are."""

from requant.data.fingerprints import fingerprint
from requant.data.loading import loader
from requant.data.protocols import LabelledImages, Part, Split, UnlabeledImages
from requant.data.sampler import EpochSampler
from requant.data.sources import classes, cuts_crops, has_training_images, labelled, unlabeled

__all__ = [
    "EpochSampler",
    "LabelledImages",
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
