"""Clustering of weights: values in, a codebook out."""

from requant.clustering.granularity import check_granularity
from requant.clustering.methods import METHODS, OPTIONS, cluster
from requant.clustering.passes import cluster_tensor
from requant.clustering.splitting import cluster_split
from requant.limits import MAX_CENTROIDS

__all__ = ["MAX_CENTROIDS", "METHODS", "OPTIONS", "check_granularity", "cluster", "cluster_split", "cluster_tensor"]
