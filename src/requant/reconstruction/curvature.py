"""How much the network's outputs change with its weights: measured on images without labels."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from requant.errors import UserError
from requant.modes import evaluating
from requant.outputs import SOFTMAX, Outputs, positions


def fisher(model: nn.Module, images: Iterable[Tensor], seed: int = 0, outputs: Outputs = SOFTMAX) -> dict[str, Tensor]:
    """The diagonal of the Fisher information, the mean over images, for each parameter.

    It is the second derivative of KL(outputs as they are || outputs with a weight changed): the expected squared
    gradient of log p(y | image) for classes y drawn from the network's own outputs (Amari, "Natural gradient works
    efficiently in learning", 1998); where positions have classes of their own, of the mean over them. No label is used.

    Args:
        model: its parameters and modes are left as they are.
        images: (1, C, H, W) each; the gradient of each is squared on its own.
        seed: of the classes.
        outputs: what the network's outputs are.

    Returns:
        By parameter name, the parameters' shapes.

    Raises:
        UserError: for outputs that are not finite.

    """
    random = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = 0
    with evaluating(model), torch.enable_grad():
        for image in images:
            found = outputs.of(model, image)
            if not found.isfinite().all():
                raise UserError("the network's outputs on the unlabeled images are not finite: is any pixel NaN?")
            surprise = outputs.surprise(found, random) / positions(found) ** 0.5
            gradients = torch.autograd.grad(surprise, list(parameters.values()), allow_unused=True)
            for total, gradient in zip(totals.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient.square()
            count += 1
    return {name: total / count for name, total in totals.items()}
