"""Each layer alone at each k: points that share what they can against one evaluation of the whole network a point.

python -m benchmarks.sensitivity [images]. On the two CIFAR-10 networks (random weights and images: no time depends on
them), the paper's grid of layers and k. A whole evaluation is measured every so many points, in the same process: as a
run does it (images prepared anew, data=cifar10's batch size, freed memory kept), and on the study's own batches, which
leaves only what reuse saves. Seconds are computing time on one thread, of evaluating alone: clustering and storing are
the same.
"""

import statistics
import time
from collections.abc import Iterable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.arguments import command_line
from requant.data import loader
from requant.data.arrays import ArrayImages
from requant.data.pairs import LabelledPairs
from requant.evaluation import evaluate
from requant.machine import keep_memory
from requant.models import Architecture, build, example_input, preprocessing
from requant.sensitivity import Study, grid

NETWORKS = {"vgg16_cifar": (["each", "14-15"], 100), "resnet50_cifar_s2": (["each", "13-49"], 250)}
"""Layers, and the batch size that was the fastest of 25, 50, 100, 250 and 500."""
BATCH = 500
CENTROIDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EVERY = 24


def main(images: int) -> None:
    """Measure both networks, show."""
    torch.set_num_threads(1)
    keep_memory()
    table = Table("network", "points", "run, s", "whole, s", "study, s", "run / study", "whole / study")
    table.title = f"a point's evaluation on {images:,} images"
    for name in NETWORKS:
        points, run, whole, study = measure(name, images)
        ratios = (f"{run / study:.2f}", f"{whole / study:.2f}")
        table.add_row(name, str(points), *(f"{seconds:.3f}" for seconds in (run, whole, study)), *ratios)
    Console().print(table)


def measure(name: str, images: int) -> tuple[int, float, float, float]:
    """The number of points; seconds a point: as a run evaluates, on the study's batches, and by the study."""
    torch.manual_seed(0)
    architecture = Architecture(name, 10, 3, 32, 0.25)
    teacher = build(architecture).to(memory_format=torch.channels_last)
    layers, batch = NETWORKS[name]
    pixels = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8)
    test = LabelledPairs(ArrayImages(pixels, preprocessing(architecture)), torch.zeros(images, dtype=torch.int64))
    batches = list(loader(test, batch, shuffle=False))
    started = time.process_time()
    study = Study(teacher, example_input(architecture), batches, method="equal_population", storage="packed")
    shared = time.process_time() - started
    run, whole = [], []
    points = grid(study.tensors, ["weight"], layers, CENTROIDS)
    for done, measured in enumerate(study.measure(points)):
        shared += measured.evaluation_cpu_seconds
        if done % EVERY == 0:
            run.append(_seconds(teacher, loader(test, BATCH, shuffle=False)))
            whole.append(_seconds(teacher, batches))
    return len(points), statistics.mean(run), statistics.mean(whole), shared / len(points)


def _seconds(teacher: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    started = time.process_time()
    evaluate(teacher, batches)
    return time.process_time() - started


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("images", nargs="?", type=int, default=1000)
    main(parser.parse_args().images)
