"""Clustering of weights: values in, a codebook out."""

from requant.clustering.granularity import check_granularity
from requant.clustering.methods import METHODS, OPTIONS, cluster
from requant.clustering.passes import cluster_tensor
from requant.clustering.splitting import cluster_split

__all__ = ["METHODS", "OPTIONS", "check_granularity", "cluster", "cluster_split", "cluster_tensor"]
