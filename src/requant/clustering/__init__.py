"""Clustering of weights: values in, a codebook out."""

from requant.clustering.methods import METHODS, cluster

__all__ = ["METHODS", "cluster"]
