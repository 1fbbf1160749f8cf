"""Retraining: win the accuracy back."""

from requant.retraining.labelled import retrain_with_labels
from requant.retraining.loop import History
from requant.retraining.unlabeled import predict, retrain

__all__ = ["History", "predict", "retrain", "retrain_with_labels"]
