"""Each layer alone at each k: points that share what they can against one evaluation of the whole network a point.

python -m benchmarks.sensitivity [images]. On the two CIFAR-10 teachers and their test images, the paper's grid of
layers and k, without and with sensitivity.screen. A whole evaluation is measured every so many points, in the same
process: as a run does it (images prepared anew, data=cifar10's batch size, freed memory kept), and on the study's own
batches, which leaves only what the study saves. Seconds are computing time on one thread, of evaluating alone:
clustering and storing are the same.
"""

import statistics
import time
from collections.abc import Iterable
from itertools import islice, product

import torch
from rich.table import Table
from torch import Tensor, nn

from benchmarks.arguments import command_line, print_table
from benchmarks.frontier import NETWORKS
from requant import data
from requant.data import loader
from requant.evaluation import evaluate
from requant.machine import keep_memory
from requant.models import build, example_input, load_weights, preprocessing
from requant.sensitivity import Study, grid

POINTS = {"vgg16_cifar10": (["each", "14-15"], 100), "resnet50_cifar10": (["each", "13-49"], 250)}
"""Layers, and the batch size that was the fastest of 25, 50, 100, 250 and 500."""
BATCH = 500
CENTROIDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EVERY = 24


def main(images: int) -> None:
    """Measure both networks, show."""
    torch.set_num_threads(1)
    keep_memory()
    table = Table("network", "screen", "points", "run, s", "whole, s", "study, s", "run / study", "whole / study")
    table.title = f"a point's evaluation on {images:,} images"
    for name, screen in product(POINTS, (False, True)):
        points, run, whole, study = measure(name, images, screen)
        ratios = (f"{run / study:.2f}", f"{whole / study:.2f}")
        seconds = (f"{found:.3f}" for found in (run, whole, study))
        table.add_row(name, str(screen).lower(), str(points), *seconds, *ratios)
    print_table(table)


def measure(name: str, images: int, screen: bool) -> tuple[int, float, float, float]:
    """The number of points; seconds a point: as a run evaluates, on the study's batches, and by the study."""
    network, (layers, batch) = NETWORKS[name], POINTS[name]
    architecture = network.architecture
    teacher = build(architecture)
    load_weights(teacher, network.weights, architecture)
    teacher.to(memory_format=torch.channels_last)
    test = data.labelled(network.data, "test", preprocessing(architecture))
    batches = list(islice(loader(test, batch, shuffle=False), images // batch))
    started = time.process_time()
    study = Study(
        teacher, example_input(architecture), batches, method="equal_population", storage="packed", screen=screen
    )
    shared = time.process_time() - started
    run, whole = [], []
    points = grid(study.tensors, ["weight"], layers, CENTROIDS)
    for done, measured in enumerate(study.measure(points)):
        shared += measured.evaluation_cpu_seconds
        if done % EVERY == 0:
            run.append(_seconds(teacher, islice(loader(test, BATCH, shuffle=False), images // BATCH)))
            whole.append(_seconds(teacher, batches))
    return len(points), statistics.mean(run), statistics.mean(whole), shared / len(points)


def _seconds(teacher: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    started = time.process_time()
    evaluate(teacher, batches)
    return time.process_time() - started


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("images", nargs="?", type=int, default=1000, help="a multiple of 500")
    main(parser.parse_args().images)
