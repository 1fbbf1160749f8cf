"""Each layer alone at each k: points that share what they can against one evaluation of the whole network a point.

python -m benchmarks.sensitivity [images]. On the two CIFAR-10 networks (random weights and images: no time depends on
them), the paper's grid of layers at four k. A whole evaluation is measured every so many points, in the same process.
Seconds are computing time on one thread: of evaluating alone, since clustering and storing are the same on both sides.
"""

import statistics
import sys
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from requant.evaluation import evaluate
from requant.models import Architecture, build, example_input
from requant.sensitivity import Study, grid

NETWORKS = {"vgg16_cifar": (["each", "14-15"], 100), "resnet50_cifar_s2": (["each", "13-49"], 250)}
"""Layers, and the batch size that was the fastest of 25, 50, 100, 250 and 500."""
CENTROIDS = (4, 16, 64, 256)
EVERY = 12


def main(images: int) -> None:
    """Measure both networks, show."""
    torch.set_num_threads(1)
    table = Table(
        "network", "points", "whole network, s a point", "study, s a point", "ratio", title=f"{images:,} images"
    )
    for name in NETWORKS:
        points, whole, shared = measure(name, images)
        table.add_row(name, str(points), f"{whole:.3f}", f"{shared:.3f}", f"{whole / shared:.2f}")
    Console().print(table)


def measure(name: str, images: int) -> tuple[int, float, float]:
    """The number of points, and the seconds of evaluating one: the whole network, and by the study, all it needs in."""
    torch.manual_seed(0)
    architecture = Architecture(name, 10, 3, 32, 0.25)
    teacher = build(architecture).to(memory_format=torch.channels_last)
    layers, batch = NETWORKS[name]
    batches = [(torch.randn(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.int64)) for _ in range(images // batch)]
    started = time.process_time()
    study = Study(teacher, example_input(architecture), batches, method="equal_population", storage="packed")
    shared = time.process_time() - started
    whole = []
    points = grid(study.tensors, ["weight"], layers, CENTROIDS)
    for done, measured in enumerate(study.measure(points)):
        shared += measured.evaluation_cpu_seconds
        if done % EVERY == 0:
            whole.append(_seconds(teacher, batches))
    return len(points), statistics.mean(whole), shared / len(points)


def _seconds(teacher: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    started = time.process_time()
    evaluate(teacher, batches)
    return time.process_time() - started


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
