"""Clustering of weights: values in, a codebook out."""

from requant.clustering.methods import MAX_CENTROIDS, METHODS, OPTIONS, cluster

__all__ = ["MAX_CENTROIDS", "METHODS", "OPTIONS", "cluster"]
