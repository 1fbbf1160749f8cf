"""Measure many points of one network: what they share is computed once.

A point's network differs from the teacher only from its first clustered layer on. So the inputs of that layer are
computed once for all points that begin there, and from them the inputs of the next one. Clusterings are shared between
points. Accuracies are those that evaluating each whole network would give, to the image: the same modules see the same
tensors in the same batches, or, with `screen`, counts are decided in bfloat16 where that leaves no doubt.
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from requant import archive
from requant.clustering import cluster_split
from requant.codebook_forms import AnyCodebook
from requant.compression import place
from requant.errors import UserError
from requant.evaluation import Batches
from requant.layers import TensorInfo, describe
from requant.modes import evaluating
from requant.outputs import SOFTMAX, Outputs, main
from requant.scoring import Accuracy, score
from requant.sensitivity.chain import as_chain, holders
from requant.sensitivity.grid import Point
from requant.sensitivity.screening import in_float32, pays, screened


@dataclass(frozen=True)
class Measured:
    """One point: the size of its file on disk, and the accuracy of the network that is in it."""

    point: Point
    bytes: int
    accuracy: Accuracy
    seconds: float
    """All of it: clustering, storing, reading, evaluating."""
    evaluation_cpu_seconds: float
    """Computing time of evaluating, and of bringing the inputs to the layer, whatever else the machine does."""


class Study:
    """The points of one teacher on one set of test images.

    It keeps the inputs of one layer for all images in memory: 4 bytes times the images times the values of the widest
    layer's input (0.7 GB for 10,000 images of 32 x 32 behind 16 channels).

    Args:
        teacher: on the device to use; it is left as it was.
        example: one input (1, C, H, W), which finds the layers' order.
        batches: test images and their labels.
        method: the clustering, one of `requant.clustering.METHODS`.
        outputs: what the network's outputs are.
        screen: count on bfloat16's classes where they are float32's (`requant.sensitivity.screening`), if the device is
            faster so; there are no top-5 and no KL then.
        clustering: more arguments of `requant.clustering.cluster_split`: granularity, split, options of the method.
        storage: one of `requant.archive.STORAGES`.
        architecture: stored in every file, as `requant.models.Architecture.to_dict` gives it.

    """

    def __init__(
        self,
        teacher: nn.Module,
        example: Tensor,
        batches: Batches,
        *,
        method: str,
        storage: str,
        architecture: Mapping[str, Any] | None = None,
        clustering: Mapping[str, Any] | None = None,
        outputs: Outputs = SOFTMAX,
        screen: bool = False,
    ) -> None:
        self.tensors: list[TensorInfo] = describe(teacher, example)
        self._settings = {"split": 0.0, **(clustering or {})}
        self._outputs = outputs
        self._method, self._storage, self._architecture = method, storage, architecture
        self._student = copy.deepcopy(teacher).eval()
        starts = {t.name.rpartition(".")[0] for t in self.tensors if t.kind == "weight"}
        self._chain = as_chain(self._student, starts, example)
        self._piece_of = holders(self._chain, self._student)
        self._codebooks: dict[tuple[str, int], AnyCodebook] = {}
        device = next(teacher.parameters()).device
        images, labels = zip(*batches, strict=True)
        self._inputs, self._reached = [batch.to(device) for batch in images], 0
        self._labels_N = torch.cat([batch.cpu() for batch in labels])
        self._teacher_NC, self._seconds = self._measure_teacher(teacher)
        self._counts_alone, self._screens = screen, screen and self._may_screen()

    @property
    def original_bytes(self) -> int:
        """4 bytes for each of the teacher's parameters and running statistics."""
        return 4 * sum(tensor.values for tensor in self.tensors)

    @property
    def teacher(self) -> Accuracy:
        """The unquantized network's."""
        return score(self._teacher_NC, self._labels_N, self._teacher_NC, self._outputs)

    def seconds(self, point: Point) -> float:
        """How long the teacher took from the point's first layer on: what evaluating the point will take."""
        return sum(self._seconds[self._first_piece(point) :])

    def measure(self, points: Iterable[Point]) -> Iterator[Measured]:
        """Measure points, in the order of their first layers; once only, as the inputs before them are given up."""
        for point in sorted(points, key=self._first_piece):
            started = time.perf_counter()
            codebooks = {t.name: self._codebook(t.name, point.centroids) for t in point.tensors(self.tensors)}
            with self._clustered(codebooks) as size:
                stored = time.process_time()
                self._go_to(self._first_piece(point))
                accuracy = self._accuracy()
                evaluated = time.process_time() - stored
            yield Measured(point, size, accuracy, time.perf_counter() - started, evaluated)

    def _first_piece(self, point: Point) -> int:
        return min(self._piece_of[tensor.name] for tensor in point.tensors(self.tensors))

    @torch.inference_mode()
    def _measure_teacher(self, teacher: nn.Module) -> tuple[Tensor, list[float]]:
        """Logits (N, C), and the seconds of each piece."""
        self._check(teacher, self._inputs[0])
        seconds, logits = [0.0] * len(self._chain), []
        for images in self._inputs:
            x = images
            for i, piece in enumerate(self._chain):
                started = time.perf_counter()
                x = piece(x)
                seconds[i] += time.perf_counter() - started
            logits.append(self._outputs.checked(x, teacher, len(images)).float().cpu())
        return torch.cat(logits), seconds

    def _check(self, teacher: nn.Module, images_NCHW: Tensor) -> None:
        """Raise UserError unless the chain gives what the network gives, and no piece changes its input."""
        x = images_NCHW
        for piece in self._chain:
            before = x.clone()
            output = piece(x)
            if not torch.equal(before, x):
                raise UserError("the network overwrites what a part of it was given: make its operations not in place")
            x = output
        with evaluating(teacher):
            whole = teacher(images_NCHW.clone())
        if not torch.equal(main(x), main(whole)):
            raise UserError("the network gives something else each time, or when it is cut: it cannot be studied so")

    @torch.inference_mode()
    def _go_to(self, piece: int) -> None:
        """Bring the inputs before `piece`, batch by batch."""
        if piece < self._reached:
            raise AssertionError("points are measured in the order of their first layers")
        for i, x in enumerate(self._inputs):
            self._inputs[i] = _through(self._chain[self._reached : piece], x)
        self._reached = piece

    def _may_screen(self) -> bool:
        if self._outputs is not SOFTMAX or self._teacher_NC.ndim != 2 or self._teacher_NC.shape[1] < 2:
            raise UserError("sensitivity.screen=true decides the classes of images: leave it out for other outputs")
        if not pays(self._rest, self._inputs[0]):
            warnings.warn("bfloat16 is not faster here: sensitivity.screen computes in float32 alone", stacklevel=3)
            return False
        return True

    def _rest(self, x: Tensor) -> Tensor:
        outputs: Tensor = main(_through(self._chain[self._reached :], x))
        return outputs

    @torch.inference_mode()
    def _accuracy(self) -> Accuracy:
        logits_NC = (screened if self._screens else in_float32)(self._rest, self._inputs)
        found = score(logits_NC, self._labels_N, self._teacher_NC, self._outputs)
        return replace(found, top5=None, kl=None) if self._counts_alone else found

    @contextmanager
    def _clustered(self, codebooks: Mapping[str, AnyCodebook]) -> Iterator[int]:
        """The network with these tensors as a file gives them back; gives the file's bytes, and undoes it."""
        state = self._student.state_dict()
        originals = {name: state[name].clone() for name in codebooks}
        try:
            place(self._student, codebooks)
            yield self._store(codebooks)
        finally:
            for name, original in originals.items():
                state[name].copy_(original)

    def _store(self, codebooks: Mapping[str, AnyCodebook]) -> int:
        """Write the network to a file, and set it to what reading the file gives."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "point.h5"
            report = archive.save(
                path, self._student, codebooks, storage=self._storage, architecture=self._architecture
            )
            place(self._student, archive.read(path).codebooks)
        return report.bytes

    def _codebook(self, name: str, centroids: int) -> AnyCodebook:
        key = (name, centroids)
        if key not in self._codebooks:
            with warnings.catch_warnings():  # a bias of ten values at k = 256 is exact, and that is its result
                warnings.filterwarnings("ignore", message=".*distinct values, fewer than.*")
                values = self._student.state_dict()[name]
                self._codebooks[key] = cluster_split(values, centroids, self._method, name=name, **self._settings)
        return self._codebooks[key]


def _through(pieces: Sequence[nn.Module], x: Tensor) -> Tensor:
    for piece in pieces:
        x = piece(x)
    return x
