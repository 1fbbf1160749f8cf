"""1,797 digits that scikit-learn carries, by other writers than MNIST's, made to look like MNIST."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

_FRAME = 28
_GLYPH = 20
_BRIGHTEST = 16


def read_images() -> Tensor:
    """Images, uint8 (1797, 1, 28, 28): no label is read.

    As in MNIST (LeCun et al., 1998) a digit fills 20 x 20 pixels, and its centre of mass is the image's centre.
    """
    from sklearn.datasets import load_digits  # slow to import

    return torch.from_numpy(np.stack([framed(glyph) for glyph in load_digits().images]))[:, None]


def framed(glyph: NDArray[np.float64]) -> NDArray[np.uint8]:
    """8 x 8 intensities from 0 to 16 as 28 x 28 bytes."""
    grey = Image.fromarray(np.rint(glyph * (255 / _BRIGHTEST)).astype(np.uint8))
    large = np.asarray(grey.resize((_GLYPH, _GLYPH), Image.Resampling.BICUBIC))
    top, left = _margin(large.sum(axis=1)), _margin(large.sum(axis=0))
    frame = np.zeros((_FRAME, _FRAME), np.uint8)
    frame[top : top + _GLYPH, left : left + _GLYPH] = large
    return frame


def _margin(profile: NDArray[np.uint64]) -> int:
    """Free pixels before the digit that bring its centre of mass to the frame's middle, as far as it stays inside."""
    centre = np.average(np.arange(_GLYPH), weights=profile)
    return int(np.clip(np.rint((_FRAME - 1) / 2 - centre), 0, _FRAME - _GLYPH))
