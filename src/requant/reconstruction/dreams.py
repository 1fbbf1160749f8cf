"""Images that show what the network knows: photographs changed until it sees in them classes that they do not show.

What reconstruction makes of a layer suits the images that it saw. A few hundred photographs show few of a thousand
classes, and channels that are there for the others hardly stir on them. So each image gets a class of its own, and its
pixels follow the gradient towards that class for a few steps (Mordvintsev et al., "Inceptionism: Going Deeper into
Neural Networks", 2015). Such images, begun with noise and made like real ones by what batch norms remember, have taken
the place of data altogether (Cai et al., "ZeroQ", CVPR 2020; Yin et al., "Dreaming to Distill: Data-free Knowledge
Transfer via DeepInversion", CVPR 2020); here they stand beside photographs, and begin with them. No label is read.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from requant.errors import UserError
from requant.modes import evaluating
from requant.outputs import SOFTMAX, Outputs
from requant.progress import bar

STEPS = 10
RATE = 0.085  # of the pixels' deviation, a step's root mean square
SHIFT = 1 / 14  # of a side, the furthest that an image is moved by before a step
WIDTHS = (1, 3, 9)  # of the means that are taken of a gradient, in pixels of an image of `SIDE`
SIDE = 224


def dreamed(model: nn.Module, batches: Sequence[Tensor], outputs: Outputs = SOFTMAX, seed: int = 0) -> list[Tensor]:
    """Each image pushed towards a class; all classes come about as often as each other.

    Before each step the images are moved by a few pixels, and of the gradient means over squares are added to it, so
    that what appears has shape and is not a pattern for single pixels. Pixels keep to the range of those given.

    Args:
        model: left as it is.
        batches: images (N, C, H, W), normalised; left as they are.
        outputs: what the network's outputs are; an image is given a class, or a thing that is to be there.
        seed: of which class is whose.

    Raises:
        UserError: for outputs that are no classes, or are so for each position.

    """
    if not batches:
        return []
    with evaluating(model), torch.no_grad():
        example = outputs.of(model, batches[0][:1].clone())
    if outputs.log_probabilities is None or example.ndim != 2:
        raise UserError("dreams are of classes, one an image, and this network's outputs are something else: set none")
    random = torch.Generator().manual_seed(seed)
    classes = _classes(sum(map(len, batches)), example.shape[1], random).split([len(batch) for batch in batches])
    low = torch.stack([batch.amin((0, 2, 3), keepdim=True) for batch in batches]).amin(0)
    high = torch.stack([batch.amax((0, 2, 3), keepdim=True) for batch in batches]).amax(0)
    found = []
    with evaluating(model), bar() as progress, torch.enable_grad():
        for batch, wanted in progress.track(list(zip(batches, classes, strict=True)), description="dream of classes"):
            images, rate = batch, RATE * float(batch.std())
            for _ in range(STEPS):
                images = images - rate * _direction(model, images, wanted.to(images.device), outputs, random)
                images = images.clamp(min=low, max=high)
            found.append(images)
    return found


def _classes(count: int, classes: int, random: torch.Generator) -> Tensor:
    """(count,) every class once, in some order, then again."""
    rounds = -(-count // classes)
    return torch.cat([torch.randperm(classes, generator=random) for _ in range(rounds)])[:count]


def _direction(model: nn.Module, images: Tensor, wanted: Tensor, outputs: Outputs, random: torch.Generator) -> Tensor:
    """Away from the wanted classes: a gradient by pixels, moved and smoothed, of root mean square 1 for each image."""
    assert outputs.log_probabilities is not None
    reaches = [int(SHIFT * side) for side in images.shape[2:]]
    by = [int(torch.randint(-reach, reach + 1, (1,), generator=random)) for reach in reaches]
    moved = images.roll(by, (2, 3)).requires_grad_()
    found = outputs.of(model, moved.clone())  # it may write over its input
    likely = outputs.log_probabilities(found).gather(1, wanted[:, None])
    (gradient,) = torch.autograd.grad(-likely.sum(), moved)
    smooth = _smoothed(gradient.roll([-pixels for pixels in by], (2, 3)))
    size = smooth.square().mean((1, 2, 3), keepdim=True).sqrt()
    return smooth / size.clamp_min(torch.finfo(smooth.dtype).tiny)


def _smoothed(gradient: Tensor) -> Tensor:
    """The sum of a gradient and of its means over squares, twice each, in proportion to their sides."""
    side, channels = min(gradient.shape[2:]), gradient.shape[1]
    widths = {2 * int(width * side / SIDE / 2) + 1 for width in WIDTHS}
    gradient = gradient.contiguous(memory_format=torch.channels_last)  # in which convolutions of few channels are fast
    found = torch.zeros_like(gradient)
    for width in sorted(widths):
        mean, along = gradient, gradient.new_full((channels, 1, 1, width), 1 / width)
        for _ in range(2):
            mean = F.conv2d(mean, along, padding=(0, width // 2), groups=channels)
            mean = F.conv2d(mean, along.transpose(2, 3), padding=(width // 2, 0), groups=channels)
        found += width * mean
    return found
