"""How much the network's outputs change with its weights: measured on images without labels."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from requant.errors import UserError
from requant.modes import evaluating
from requant.scores import scores


def fisher(model: nn.Module, images: Iterable[Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The diagonal of the Fisher information, the mean over images, for each parameter.

    It is the second derivative of KL(outputs as they are || outputs with a weight changed): the expected squared
    gradient of log p(y | image) for classes y drawn from the network's own outputs (Amari, "Natural gradient works
    efficiently in learning", 1998). No label is used.

    Args:
        model: its parameters and modes are left as they are.
        images: (1, C, H, W) each; the gradient of each is squared on its own.
        seed: of the classes.

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
            outputs = scores(model, image)
            if not outputs.isfinite().all():
                raise UserError("the network's outputs on the unlabeled images are not finite: is any pixel NaN?")
            log_shares = outputs.log_softmax(1)[0]
            drawn = torch.multinomial(log_shares.detach().exp().cpu(), 1, generator=random).item()
            gradients = torch.autograd.grad(-log_shares[int(drawn)], list(parameters.values()), allow_unused=True)
            for total, gradient in zip(totals.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient.square()
            count += 1
    return {name: total / count for name, total in totals.items()}
