"""What each step from the paper's clusters to ours gains, at equal size: 2, 3 and 4 bits a weight.

python -m benchmarks.ablation effnet_lite0 --images <imagenet>/val --photographs <folder> [--points "2 bits: trellis"]
python -m benchmarks.ablation vgg16_cifar10 --photographs <folder>
python -m benchmarks.ablation                                       draws only

All weights of a network, nothing else. The size at b bits is that of the file of k-means with 2^b centroids, packed;
every other step is made to have it (clusters by the bits of their indices, plans by their file's size). Rows go to
experiments/ablation/<network>.csv as they are found; those that are there are skipped.
"""

import copy
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import nn

from benchmarks.arguments import command_line
from benchmarks.frontier import (
    COLOURS,
    EXPERIMENTS,
    NETWORKS,
    TITLES,
    Job,
    Network,
    Point,
    crops,
    job_of,
    measure,
    read,
)
from requant import archive
from requant.auto import Grids, grids_for, in_units
from requant.compression import Compressed, compress
from requant.figures.style import PAGE, save, style
from requant.machine import keep_memory
from requant.models import example_input
from requant.recipe import Recipe
from requant.reconstruction import batches_of, best_damping
from requant.retraining import Movement, retrain_codebooks
from requant.targets import GRAIN, fit_size

FOLDER = EXPERIMENTS / "ablation"
BITS = (2, 3, 4)
NOTHING_MADE_UP_FOR = 1e9  # a damping at which weights are rounded to the nearest and stay where they were before
MOVEMENT, RATE = Movement(0.003, 0.003, together=True, hold_bits=True), 3e-4
EPOCHS = 2


def clustered(bits: int, method: str, job: Job, path: Path) -> nn.Module:
    """2^bits centroids a tensor, packed; `entropy`: four times as many, and so many bits by the entropy of indices."""
    entropy = method == "entropy"
    rules = [{"kind": "weight", "centroids": 2**bits * (4 if entropy else 1)}]
    options = {"bits": float(bits)} if entropy else {}
    found = compress(job.teacher, rules, example_input(job.network.architecture), method, options)
    job.save(path, found.model, found.codebooks, "entropy" if entropy else "packed")
    return archive.load(path)


@cache
def size_at(bits: int, job: Job) -> int:
    """Bytes of the file of k-means, packed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network"
        clustered(bits, "kmeans", job, path)
        return path.stat().st_size


@cache
def planned(bits: int, job: Job, rotate: bool = False) -> Grids:
    """The plan that all plans at this size share, but for that of turned channels."""
    example, count = example_input(job.network.architecture), min(128, job.network.images)
    return grids_for(job.teacher, example, crops(job), count, lambda _: size_at(bits, job), rotate=rotate)


@cache
def damping_at(bits: int, job: Job) -> float:
    """The reconstruction's, chosen on images held out from it."""
    plain = _fitted(bits, job, None)
    batches = batches_of(crops(job), job.network.images, job.network.batch)
    return best_damping(planned(bits, job).base, plain.codebooks, batches)


def plan(
    bits: int,
    damping: Callable[[int, Job], float] | None,
    job: Job,
    path: Path,
    trellis: bool = False,
    rotate: bool = False,
    grain: float = 0.0,
    balance: bool = False,
) -> nn.Module:
    """plan=auto, then reconstruction with this damping, where there is one."""
    found = _fitted(bits, job, damping and damping(bits, job), trellis, rotate, grain, balance)
    job.save(path, *in_units(planned(bits, job, rotate), found.model, found.codebooks), "entropy")
    return archive.load(path)


def trained(bits: int, job: Job, path: Path) -> nn.Module:
    """All but the trellis, then codebooks trained end to end on four times as many crops, twice."""
    grids = planned(bits, job, rotate=True)
    found = _fitted(bits, job, damping_at(bits, job), rotate=True, grain=GRAIN)
    student = copy.deepcopy(found.model).to(memory_format=torch.channels_last)
    recipe = Recipe(epochs=EPOCHS, batch_size=job.network.batch, optimizer="adam", learning_rate=RATE)
    common = {"statistics": "keep", "label": "train codebooks"}
    _, books = retrain_codebooks(
        student, grids.base, crops(job), codebooks=found.codebooks, movement=MOVEMENT, recipe=recipe, **common
    )
    job.save(path, *in_units(grids, student, books), "entropy")
    return archive.load(path)


def _fitted(
    bits: int,
    job: Job,
    damping: float | None,
    trellis: bool = False,
    rotate: bool = False,
    grain: float = 0.0,
    balance: bool = False,
) -> Compressed:
    grids = planned(bits, job, rotate)
    batches = [] if damping is None else batches_of(crops(job), job.network.images, job.network.batch)

    def size(compressed: Compressed) -> int:
        architecture = job.network.architecture.to_dict()
        held = in_units(grids, compressed.model, compressed.codebooks)
        return archive.file_size(*held, storage="entropy", architecture=architecture)

    return fit_size(grids, size, size_at(bits, job), batches, damping, trellis, grain, balance=balance)


LAST = "codebook training"
STEPS: dict[str, Callable[[int], Point]] = {
    "paper's clusters": lambda bits: partial(clustered, bits, "equal_population"),
    "k-means": lambda bits: partial(clustered, bits, "kmeans"),
    "entropy-coded": lambda bits: partial(clustered, bits, "entropy"),
    "auto plan": lambda bits: partial(plan, bits, None),
    "statistics": lambda bits: partial(plan, bits, lambda *_: NOTHING_MADE_UP_FOR),
    "reconstruction": lambda bits: partial(plan, bits, damping_at),
    "trellis": lambda bits: partial(plan, bits, damping_at, trellis=True),
    "channels turned": lambda bits: partial(plan, bits, damping_at, trellis=True, rotate=True),
    "norms on grids": lambda bits: partial(plan, bits, damping_at, trellis=True, rotate=True, grain=GRAIN),
    "steps balanced": lambda bits: partial(
        plan, bits, damping_at, trellis=True, rotate=True, grain=GRAIN, balance=True
    ),
    LAST: lambda bits: partial(trained, bits),
}
"""In the order in which each builds on what is before it; the last in the trellis's place."""
INVERTED = {"effnet_lite0"}
"""Networks with channels that may be turned."""


def points(network: str) -> dict[str, Point]:
    """All that is measured of a network, by name."""
    steps = {step: make for step, make in STEPS.items() if step != "channels turned" or network in INVERTED}
    return {f"{bits} bits: {step}": make(bits) for bits in BITS for step, make in steps.items()}


LOOKS = {2: ("s", "--"), 3: ("^", "-."), 4: ("o", "-")}


def draw() -> None:
    """KL from the original after each step, a panel a network; the last does not follow from the one before it."""
    found = {name: rows for name in NETWORKS if (rows := read(FOLDER / f"{name}.csv"))}
    settings = {row["setting"] for rows in found.values() for row in rows}
    steps = [step for step in STEPS if step in settings]
    with style():
        figure = Figure(figsize=(PAGE, 3.0), layout="constrained")
        panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
        for axes, (name, rows) in zip(panels, found.items(), strict=True):
            for number, (bits, (marker, line)) in enumerate(LOOKS.items()):
                kl = {row["setting"]: float(row["kl"]) for row in rows if row["method"] == f"{bits} bits"}
                places = [place for place, step in enumerate(steps) if step in kl]
                last = [place for place in places if steps[place] == LAST]
                look: dict[str, Any] = {"marker": marker, "markersize": 4, "color": COLOURS[number]}
                for shown, stroke, label in (
                    (places[: len(places) - len(last)], line, f"{bits} bits"),
                    (last, "none", ""),
                ):
                    axes.plot(shown, [kl[steps[place]] for place in shown], linestyle=stroke, label=label, **look)
            axes.set_yscale("log")
            axes.set_xticks(range(len(steps)), steps, rotation=60, ha="right", rotation_mode="anchor")
            axes.set_title(f"{TITLES[name]}, n = {int(rows[0]['n']):,}")
            axes.grid(axis="y", linewidth=0.3)
        panels[0].set_ylabel("KL from the original (nats)")
        panels[-1].legend(frameon=False, fontsize=7)
        for written in save(figure, FOLDER):
            Console().print(f"  {written}", soft_wrap=True)


def main() -> None:
    """Measure what is missing, then draw."""
    parser = command_line(__doc__)
    parser.add_argument("network", nargs="?", choices=list(NETWORKS))
    parser.add_argument("--images", help="imagenet: the validation tree")
    parser.add_argument("--photographs", help="the folder of unlabeled images")
    parser.add_argument("--points", nargs="*", default=[], help="only these, such as '2 bits: trellis'")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    if given.network and given.photographs:
        network: Network = NETWORKS[given.network]
        job = job_of(network, given.photographs)
        measure(job, given.images, FOLDER / f"{given.network}.csv", points(given.network), given.points)
    draw()


if __name__ == "__main__":
    main()
