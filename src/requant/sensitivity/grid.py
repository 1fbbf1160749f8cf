"""The points of a study: what is clustered, alone, at which k."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from requant.errors import PlanError
from requant.layers import TensorInfo
from requant.plan import Rule

EACH = "each"


@dataclass(frozen=True)
class Point:
    """One network to measure: all tensors of `kind` in `layers` at k = `centroids`, everything else left alone.

    `layers` is written as in a plan's rule: `"3"`, `"14-15"`.
    """

    kind: str
    layers: str
    centroids: int

    def tensors(self, of: Sequence[TensorInfo]) -> list[TensorInfo]:
        """Those that are clustered."""
        rule = Rule(self.centroids, self.layers, self.kind)
        return [tensor for tensor in of if rule.matches(tensor)]


def grid(
    tensors: Sequence[TensorInfo], kinds: Sequence[str], layers: Sequence[str], centroids: Sequence[int]
) -> list[Point]:
    """Each of `kinds` in each of `layers` at each k.

    Args:
        tensors: the network's, as `requant.layers.describe` gives them.
        kinds: of `requant.kinds.KINDS`.
        layers: as in a plan's rules; `"each"` stands for every layer that has the kind, alone.
        centroids: each 1 to 4096.

    Raises:
        PlanError: for a point that is no rule, or that nothing matches.

    """
    chosen = ((kind, layer) for kind in kinds for layer in _expanded(tensors, kind, layers))
    points = [Point(kind, layer, k) for kind, layer in dict.fromkeys(chosen) for k in centroids]
    for point in points:
        if not point.tensors(tensors):
            raise PlanError(f"layers {point.layers} have no tensor of kind {point.kind}: leave it out of the grid")
    return points


def _expanded(tensors: Sequence[TensorInfo], kind: str, layers: Sequence[str]) -> Iterator[str]:
    for entry in layers:
        if entry == EACH:
            yield from map(str, sorted({tensor.layer for tensor in tensors if tensor.kind == kind}))
        else:
            yield entry
