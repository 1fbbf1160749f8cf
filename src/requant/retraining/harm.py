"""Whether a training did harm: whether it moved the student away from the teacher."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from requant.outputs import Outputs
from requant.reconstruction.layerwise import batches_of
from requant.reconstruction.sensitivity import mean_divergence, outputs_on

COMPARED = 512
"""Images that say so."""


def compared(images: Any, size: int) -> list[Tensor]:
    """The last of the images in batches of `size`: reconstruction, which fits the first, mostly has not seen them.

    On images that it has seen it looks nearer than training ever comes, and training would be undone for nothing.
    """
    return batches_of(images, COMPARED, size, begin=max(0, len(images) - COMPARED))


def moved_away(
    outputs: Outputs, teacher: nn.Module, before: nn.Module, after: nn.Module, batches: Sequence[Tensor]
) -> bool:
    """Whether `after` is further from the teacher than `before` was, on the images of `compared`; then it is said."""
    wanted = outputs_on(outputs, teacher, batches)
    was, now = (mean_divergence(outputs, outputs_on(outputs, found, batches), wanted) for found in (before, after))
    if now <= was:
        return False
    warnings.warn(
        f"training moved the network away, from {was:.3g} to {now:.3g} on {sum(map(len, batches))} of its images: it "
        "is left as it was. Set a lower learning_rate and, where codebooks are trained, lower rates of these, or train "
        "longer",
        stacklevel=3,
    )
    return True
