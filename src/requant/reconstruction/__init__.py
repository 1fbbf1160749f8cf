"""Reconstruction: choose a student's weights among the centroids so that its layers compute what the teacher's do."""

from requant.reconstruction.layerwise import at_places, batches_of, best_damping, reconstruct

__all__ = ["at_places", "batches_of", "best_damping", "reconstruct"]
