"""Layer by layer, in the order of the network: round the weights, then give the outputs the teacher's statistics."""

import copy
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from requant.codebook import Codebook, index_dtype
from requant.codebook_forms import AnyCodebook, scalars
from requant.codebook_trellis import TrellisCodebook
from requant.compression import place
from requant.errors import UserError
from requant.modes import evaluating
from requant.outputs import SOFTMAX, Outputs
from requant.progress import bar, console
from requant.reconstruction.corrections import correct_bias, correct_norm, is_free
from requant.reconstruction.costs import Rounding
from requant.reconstruction.graph import (
    Layer,
    Walk,
    batches_that_fit,
    channels_last,
    layers,
    norm_of,
    side_by_side,
    trace,
)
from requant.reconstruction.least_squares import solved
from requant.reconstruction.moments import JointMoments, joint_moments
from requant.reconstruction.rounding import compensated_indices
from requant.reconstruction.sensitivity import mean_divergence, outputs_on
from requant.reconstruction.trellis_rounding import trellis_indices
from requant.suggest import some

MOST_BYTES = 4 << 30  # of activations in memory, teacher's and student's
DAMPINGS = (0.01, 0.1, 1.0)
MOST_TRIED = 1024  # images on which the damping is chosen
STATES = 64  # of trellises
UNSAID = 0.01  # of the clustered weights


def reconstruct(
    original: nn.Module,
    codebooks: Mapping[str, AnyCodebook],
    batches: Sequence[Tensor],
    damping: float | None = None,
    trellis: Collection[str] = (),
    outputs: Outputs = SOFTMAX,
    grain: float = 0.0,
    dreams: Sequence[Tensor] = (),
    roundings: dict[str, Rounding] | None = None,
) -> tuple[nn.Module, dict[str, AnyCodebook]]:
    """A student on the same centroids, whose weights are chosen among them so that it computes what the original does.

    Each layer sees what the student's layers before it make of the images. Its weights are solved for: those that make
    the original's outputs of that (`least_squares`). Then they are rounded one after another, errors made up for by
    those to come (`rounding`); weights without a codebook stay the solution, or as they were where nothing before them
    has changed. Then the batch norm behind it, or its bias, is set so that its
    outputs have the original's mean (and deviation) in each channel. What has a codebook and is no layer's weight
    stands still. No label is used, and nothing is trained by gradients.

    Activations are kept in memory, the teacher's and the student's, up to 4 GiB: where the early layers' do not fit for
    all images, the first images do for them, and the others join where activations have become smaller.

    Args:
        original: the network before clustering; left as it is.
        codebooks: by name; their centroids are kept, their indices are where those of layers that cannot be followed
            (called more than once, or of other types than convolutions and linear layers) stay.
        batches: images (N, C, H, W), without labels.
        damping: of the inputs' moments, in solving and in rounding; None: the best of three (`best_damping`).
        trellis: codebooks of equal steps whose weights are to go on a trellis between their centroids, where layers can
            be followed.
        outputs: what the network's outputs are, by which the damping is chosen.
        grain: biases, and batch norms' scales and shifts, are put on grids (`coarse`) whose steps are this share of the
            noise in their outputs; 0: they are not.
        dreams: batches to look at beside those (`requant.reconstruction.dreams`); the damping is chosen without them.
        roundings: where there is one, what rounding did to each layer's weights is put there, by their names.

    Returns:
        The student and its codebooks.

    Raises:
        UserError: for a network whose steps cannot be listed, for codebooks that are not one table each, and for no
            images.

    """
    if not batches:
        raise UserError("reconstruction needs images: give it one batch at least")
    plain = scalars(codebooks, "reconstruction")
    found: dict[str, AnyCodebook] = {**plain}
    if damping is None:
        damping = best_damping(original, codebooks, batches, outputs)
    graph, student = trace(original, batches[0]), copy.deepcopy(original)
    place(student, codebooks)
    known = layers(original, graph)
    _say_what_stays(plain, {layer.weight for layer in known.values()})
    images = channels_last([*batches, *dreams])
    with evaluating(original), evaluating(student), bar() as progress, torch.no_grad():
        task = progress.add_task("reconstruct", total=len(known))
        room = batches_that_fit(original, graph, images[0], MOST_BYTES)
        first = images[: min(room.values())]
        walks = teacher_walk, student_walk = Walk(original, graph, first), Walk(student, graph, first)
        for node in side_by_side(teacher_walk, student_walk, images[len(first) :], room):
            layer = known.get(node)
            if layer is not None and layer.weight in found:
                weight = original.get_parameter(layer.weight)
                moments = _moments(weight, walks, node, layer, codebooks)
                target = solved(layer.as_rows(weight), moments, damping)
                # A trellis follows the order in which weights are stored, which is not that of a transposed one's rows.
                rounded = _on_trellis if layer.weight in trellis and not layer.transposed else _rounded
                found[layer.weight] = rounded(layer, target, moments.second, plain[layer.weight], damping)
                place(student, {layer.weight: found[layer.weight]})
                if roundings is not None:
                    error = layer.as_rows(student.get_parameter(layer.weight)) - target
                    roundings[layer.weight] = Rounding(layer.as_stored(error), moments.means_of(error))
            elif layer is not None:
                _solve(walks, node, layer, codebooks, damping)
            if layer is not None and layer.weight_step is not None:
                student_walk.renew(layer.weight_step)
            student_walk.compute(node)
            if layer is not None:
                found |= correct_bias(teacher_walk, student_walk, node, layer, found, grain)
                progress.advance(task)
            elif (norm := norm_of(original, node)) and is_free(norm, codebooks):
                found |= correct_norm(teacher_walk, student_walk, node, norm, grain)
    return student, found


def _say_what_stays(codebooks: Mapping[str, Codebook], followed: Collection[str]) -> None:
    """Warn where more than a hundredth of the clustered weights is of layers that cannot be followed."""
    weights = {name: book.indices.size for name, book in codebooks.items() if len(book.shape) > 1 and book.k > 1}
    left = [name for name in weights if name not in followed]
    share = sum(weights[name] for name in left) / max(1, sum(weights.values()))
    if share > UNSAID:
        warnings.warn(
            f"reconstruction leaves {len(left)} of {len(weights)} clustered weights, {share:.1%} of their values, on "
            f"the clusters that they have ({some(left, 3)}): no convolution or linear layer uses them as they are",
            stacklevel=3,
        )


def best_damping(
    original: nn.Module,
    codebooks: Mapping[str, AnyCodebook],
    batches: Sequence[Tensor],
    outputs: Outputs = SOFTMAX,
) -> float:
    """The damping whose student, made with three quarters of the batches, is nearest to the original on the others.

    Nearness is KL(original || student), of values the squared error. The batches are the first ones, up to 1,024
    images. Where there is but one, nothing can be held out: the strongest, which trusts the images least.
    """
    batches = batches[: max(2, MOST_TRIED // len(batches[0]))]
    held_out = len(batches) // 4 or 1
    if len(batches) == 1:
        return DAMPINGS[-1]
    seen, others = batches[:-held_out], batches[-held_out:]
    wanted = outputs_on(outputs, original, others)

    def distance(student: nn.Module) -> float:
        found = mean_divergence(outputs, outputs_on(outputs, student, others), wanted)
        return math.inf if math.isnan(found) else found

    plain = copy.deepcopy(original)
    place(plain, codebooks)
    before = distance(plain)
    found = {damping: distance(reconstruct(original, codebooks, seen, damping)[0]) for damping in DAMPINGS}
    best = min(found, key=found.__getitem__)
    said, form = outputs.distance, ".3g" if outputs.decided is None else ".4f"
    tried = ", ".join(f"{max(value, 0.0):{form}} with {damping:g}" for damping, value in found.items())
    text = f"  damping {best:g}: on held-out images {said} is {tried}; {before:{form}} before"
    console.print(text, highlight=False)
    if before < found[best]:
        console.print("  The clusters as they are were nearer: give it more images, or set retrain=none.")
    return best


def _rounded(layer: Layer, target: Tensor, second: Tensor, codebook: Codebook, damping: float) -> Codebook:
    """The codebook with new indices."""
    centroids = torch.from_numpy(codebook.centroids).to(target.device)
    indices = compensated_indices(target, second, centroids, damping)
    return Codebook(codebook.centroids, _short(layer.as_stored(indices), codebook.k), codebook.dtype)


def _on_trellis(
    layer: Layer,  # noqa: ARG001
    target: Tensor,
    second: Tensor,
    codebook: Codebook,
    damping: float,
) -> TrellisCodebook:
    """The trellis whose table the codebook's centroids are."""
    table = torch.from_numpy(codebook.centroids).to(target.device)
    indices = trellis_indices(target, second, table, damping, STATES)
    return TrellisCodebook(codebook.centroids, _short(indices, codebook.k), codebook.dtype, STATES)


def _short(indices: Tensor, k: int) -> Any:
    return indices.cpu().numpy().astype(index_dtype(k))


def _solve(
    walks: tuple[Walk, Walk], node: fx.Node, layer: Layer, codebooks: Mapping[str, AnyCodebook], damping: float
) -> None:
    """Set a weight that has no codebook by least squares, unless inputs and bias are still the teacher's."""
    pairs = zip(*(walk.inputs(node) for walk in walks), strict=True)
    if layer.bias not in codebooks and all(torch.equal(*pair) for pair in pairs):
        return
    weight = walks[1].model.get_parameter(layer.weight)
    moments = _moments(weight, walks, node, layer, codebooks)
    weight.copy_(layer.as_stored(solved(layer.as_rows(weight), moments, damping)))


def _moments(
    weight: Tensor, walks: tuple[Walk, Walk], node: fx.Node, layer: Layer, codebooks: Mapping[str, AnyCodebook]
) -> JointMoments:
    """Of what the student's layer sees and the teacher's outputs."""
    teacher, student = walks
    bias = None if layer.bias_step is None else student.values[layer.bias_step]
    if layer.norm is not None:
        free_mean = is_free(layer.norm, codebooks)
    else:
        free_mean = layer.bias is not None and layer.bias not in codebooks
    return joint_moments(layer, layer.as_rows(weight), bias, student.inputs(node), teacher.values[node], free_mean)


def batches_of(images: Any, count: int, size: int, begin: int = 0) -> list[Tensor]:
    """`count` images, or what there is, in batches of `size`; `images` as `requant.data.unlabeled` gives them."""
    return at_places(images, range(begin, min(begin + count, len(images))), size)


def at_places(images: Any, places: range, size: int) -> list[Tensor]:
    """Those images in batches of `size`; a place beyond their number is of another epoch."""
    return [images.__getitems__(list(places[begin : begin + size])) for begin in range(0, len(places), size)]
