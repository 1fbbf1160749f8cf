"""requant: cluster a network's weights, store it small, retrain it without labels."""

__version__ = "0.1.0"
