"""Reconstruction: choose a student's weights among the centroids so that its layers compute what the teacher's do."""

from requant.reconstruction.layerwise import batches_of, reconstruct

__all__ = ["batches_of", "reconstruct"]
