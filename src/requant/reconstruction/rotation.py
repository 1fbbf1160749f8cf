"""The same function with weights of less entropy: channels between layers turned to where most weights are near 0.

Where one layer's outputs reach others' inputs through sums alone (`streams`), the network computes the same if they are
multiplied by any rotation and the weights that read them by its inverse: R W_write and W_read R^T. The file holds no R.
QuaRot (Ashkboos et al., 2024) and SpinQuant (Liu et al., 2024) turn transformers' channels, at random or as trained, so
that no value is far out, which suits steps of few bits. Coded indices cost what their entropy is, which is least the
other way round, with many values near 0 and few far out. So R is what makes

    sum log(z^2 + e^2), z the weights written and read, in units of their root mean square

least, a contrast of independent component analysis (Hyvärinen et al., 2001, chapter 9) that is nearly the bits of a
value at steps of e. As the sum of the squares stays, sum (z^2 / e^2 - log(z^2 + e^2)) is to be greatest, which is
convex in R; where it is replaced by its tangent, the best rotation is the polar factor of the gradient (Journée et al.,
"Generalized Power Method for Sparse Principal Component Analysis", 2010), from which it goes on, with momentum.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from requant.modes import evaluating
from requant.outputs import Outputs
from requant.progress import bar
from requant.reconstruction.graph import nearly
from requant.reconstruction.rescaling import scale_alike
from requant.reconstruction.streams import Stream

SMOOTH = 0.8  # e: about the steps at 2 to 3 bits a weight
MOMENTUM = 0.95
ROUNDS = 100
LEAST_SHARE = 0.01  # of the network's values


@torch.no_grad()
def turn(model: nn.Module, streams: Sequence[Stream], example: Tensor, outputs: Outputs) -> None:
    """Turn the channels of each stream, in place; batch norms that write them get one scale for all channels.

    Streams of less than a hundredth of the network's values stay: there is next to nothing to save, and the steps of
    early layers are so fine that longer tails ask for more of them than a grid may have.

    Args:
        model: in eval mode or not; its batch norms' statistics are 0 and 1
            (`requant.reconstruction.rescaling.fold_statistics`).
        streams: of it.
        example: images (N, C, H, W), on which the outputs are to stay; where they do not, nothing is turned.
        outputs: what the network's outputs are.

    """
    least = LEAST_SHARE * sum(map(torch.numel, model.parameters()))
    worth = [stream for stream in streams if sum(model.get_parameter(n).numel() for n in _touched(stream)) >= least]
    names = sorted({name for stream in worth for name in _touched(stream)})
    kept = {name: model.get_parameter(name).clone() for name in names}
    with evaluating(model), bar() as progress:
        before = outputs.of(model, example.clone())
        for stream in progress.track(worth, description="turn channels"):
            _turn(model, stream)
        if not (before.isfinite().all() and nearly(outputs.of(model, example.clone()), before)):
            for name, values in kept.items():
                model.get_parameter(name).copy_(values)


def _turn(model: nn.Module, stream: Stream) -> None:
    for layer in stream.writers:
        scale_alike(model, layer)
    written = [model.get_parameter(layer.weight).flatten(1) for layer in stream.writers]
    read = [model.get_parameter(layer.weight).transpose(0, 1).flatten(1) for layer in stream.readers]
    rotation = sparsest(torch.cat([_in_units(weight) for weight in (*written, *read)], 1))
    for layer in stream.writers:
        for name in filter(None, (layer.weight, layer.bias, layer.norm and f"{layer.norm}.bias")):
            _multiply(model.get_parameter(name), rotation, 0)
    for layer in stream.readers:
        _multiply(model.get_parameter(layer.weight), rotation, 1)


def _touched(stream: Stream) -> Iterator[str]:
    """The parameters that turning it changes."""
    for layer in stream.writers:
        yield from filter(None, (layer.weight, layer.bias))
        if layer.norm is not None:
            yield from (f"{layer.norm}.weight", f"{layer.norm}.bias")
    yield from (layer.weight for layer in stream.readers)


def sparsest(weights: Tensor) -> Tensor:
    """The rotation (C, C), in double precision, of weights (C, n) that leaves most of them near 0."""
    rotation = before = torch.eye(len(weights), dtype=weights.dtype, device=weights.device)
    for _ in range(ROUNDS):
        turned = (rotation + MOMENTUM * (rotation - before)) @ weights
        gradient = (turned / SMOOTH**2 - turned / (turned**2 + SMOOTH**2)) @ weights.T
        before, rotation = rotation, _polar(gradient).to(weights.dtype)
    return _polar(rotation)


def _in_units(weight: Tensor) -> Tensor:
    """Of their root mean square, float32; zeros as they are."""
    weight = weight.float()
    return weight / weight.pow(2).mean().sqrt().clamp_min(torch.finfo(weight.dtype).tiny)


def _multiply(parameter: Tensor, rotation: Tensor, axis: int) -> None:
    turned = torch.tensordot(rotation, parameter.to(rotation.dtype), ([1], [axis]))
    parameter.copy_(turned.movedim(0, axis))


def _polar(matrix: Tensor) -> Tensor:
    """The rotation nearest to a matrix."""
    left, _, right = torch.linalg.svd(matrix.double())
    return torch.matmul(left, right)
