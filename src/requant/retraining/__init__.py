"""Retraining: win the accuracy back."""

from requant.retraining.codebooks import Movement, retrain_codebooks
from requant.retraining.labelled import retrain_with_labels
from requant.retraining.loop import History
from requant.retraining.unlabeled import predict, retrain

__all__ = ["History", "Movement", "predict", "retrain", "retrain_codebooks", "retrain_with_labels"]
