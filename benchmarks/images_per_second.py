"""Images a second of the paper's two networks at 224 x 224: the teacher's outputs, and a step of the retraining.

python -m benchmarks.images_per_second. Random weights and images (no time depends on them); the paper's plan, so that
what it clusters stands still; float32, channels_last, SGD; the median of a few steps. Without a GPU it is one thread's
computing time, which other work on the machine changes little. docs/gpus.md reckons with it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table

from benchmarks.arguments import command_line, print_table
from requant.compression import compress
from requant.machine import cpu
from requant.models import Architecture, build, example_input
from requant.retraining.losses import LOSSES
from requant.retraining.trainable import freeze, set_modes

PLANS = {"vgg16": ("14-15", 32), "resnet50": ("13-49", 256)}
BATCH = 16
STEPS = 5


def main() -> None:
    """Measure both, show."""
    command_line(__doc__).parse_args()
    torch.set_num_threads(1)
    table = Table("network", "teacher's outputs, images/s", "retraining, images/s", "ratio")
    for name, (layers, k) in PLANS.items():
        inference, training = measure(name, layers, k)
        table.add_row(name, f"{inference:.2f}", f"{training:.2f}", f"{inference / training:.2f}")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu()
    table.caption = f"{where}; batches of {BATCH}, {STEPS} steps"
    print_table(table)


def measure(name: str, layers: str, k: int) -> tuple[float, float]:
    """Images a second: of inference, and of training what the plan leaves."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    architecture = Architecture(name)
    teacher = build(architecture).eval()
    rules = [{"layers": layers, "kind": "weight", "centroids": k}, {"kind": "bias", "centroids": 1}]
    compressed = compress(teacher, rules, example_input(architecture), "equal_population")
    student = compressed.model.to(device).to(memory_format=torch.channels_last)
    freeze(student, set(compressed.codebooks))
    set_modes(student, set(compressed.codebooks), statistics="keep", stochastic=False)
    sgd = torch.optim.SGD([p for p in student.parameters() if p.requires_grad], 0.01, momentum=0.9)
    images = torch.randn(BATCH, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
    outputs = torch.randn(BATCH, 1000, device=device)

    def step() -> None:
        sgd.zero_grad()
        LOSSES["kl"](student(images), outputs, 1.0).backward()
        sgd.step()

    teacher.to(device).to(memory_format=torch.channels_last)
    return _rate(lambda: _without_gradients(teacher, images)), _rate(step)


def _without_gradients(model: Any, images: Any) -> None:
    with torch.inference_mode():
        model(images)


def _rate(work: Callable[[], None]) -> float:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    seconds = []
    for _ in range(STEPS + 1):
        started = clock()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    return BATCH / statistics.median(seconds[1:])  # the first warms up


if __name__ == "__main__":
    main()
