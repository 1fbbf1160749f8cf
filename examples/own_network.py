"""A network of one's own: `python run.py model=own` compresses what `digits` gives; put your own in its place.

A function without arguments that gives a torch.nn.Module is all it takes. Where it gives trained weights too, say
model.weights=none; where they are in a file, model.weights=<file>; model.weights=trained trains them on `data`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Digits(nn.Module):
    """Two branches that meet again, for grey images of 28 x 28 pixels and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(32, 64, 5, stride=2, padding=2)
        self.narrow = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.hidden = nn.Linear(128 * 7 * 7, 64)
        self.last = nn.Linear(64, 10)

    def forward(self, images_N1HW: Tensor) -> Tensor:
        """Logits (N, 10)."""
        hidden = functional.relu(self.stem(images_N1HW))
        both = torch.cat([functional.relu(self.wide(hidden)), functional.relu(self.narrow(hidden))], dim=1)
        logits: Tensor = self.last(functional.relu(self.hidden(both.flatten(1))))
        return logits


def digits() -> nn.Module:
    """What is compressed."""
    return Digits()
