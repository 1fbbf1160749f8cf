"""What a classifier gives for images: a score for each class."""

from torch import Tensor, nn

from requant.errors import UserError


def scores(model: nn.Module, images: Tensor) -> Tensor:
    """The network's outputs (N, C).

    Raises:
        UserError: for outputs of another form.

    """
    found = model(images)
    if not isinstance(found, Tensor) or found.ndim != 2:
        form = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise UserError(
            f"{type(model).__name__} gives {form} for {len(images)} images, where one tensor (images, classes) is "
            "needed: wrap it in a module that returns just that"
        )
    return found
