"""Clustering of weights: values in, a codebook out."""

from requant.clustering.cluster import METHODS, cluster

__all__ = ["METHODS", "cluster"]
