"""Size against accuracy: every way to make a network's file small, each measured on the network loaded from its file.

python -m benchmarks.frontier effnet_lite0 --images <imagenet>/val --photographs <folder> [--points 'ours: 1.55 MB' ...]
python -m benchmarks.frontier vgg16_cifar10 --photographs <folder>
python -m benchmarks.frontier resnet50_cifar10 --photographs <folder>

Rows go to experiments/frontier/<network>.csv as they are found; points that are there are skipped. Then the figure is
drawn. Only ours look at images (the photographs, without labels). coremltools: extra peers. NNCodec: pip install
--no-deps nncodec, and opencv-python-headless.
"""

import csv
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import seaborn as sns
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.console import Console
from torch import Tensor, nn

from benchmarks.arguments import command_line
from benchmarks.frontier_peers import coremltools, nncodec, whole_numbers
from requant import archive, data
from requant.automatic import compress_to
from requant.codebook_forms import AnyCodebook
from requant.compression import compress
from requant.data import UnlabeledImages
from requant.evaluation import outputs
from requant.figures.style import COLUMN, save, style
from requant.machine import keep_memory
from requant.models import Architecture, build, example_input, load_weights, preprocessing
from requant.recipe import Recipe
from requant.scoring import score

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
EPOCHS, CROPS = 8, 10_000
"""Of a training of codebooks."""
COLUMNS = (
    "method",
    "setting",
    "bytes",
    "original_bytes",
    "n",
    "correct",
    "teacher_correct",
    "agreement",
    "kl",
    "seconds",
)


@dataclass(frozen=True)
class Network:
    """A network, what it is measured on, and which of the photographs' pixels are looked at."""

    architecture: Architecture
    weights: str
    data: str
    scale: tuple[float, float]
    images: int
    batch: int
    sizes: tuple[float, ...]  # of our files, MB
    trained: tuple[float, ...] = ()  # of those whose codebooks are trained
    dreams: int = 0  # beside the images, in ours


NETWORKS = {
    "effnet_lite0": Network(
        Architecture("efficientnet_lite0"), "imagenet", "imagenet", (0.25, 1.0), 512, 32, (1.55, 1.86, 1.3, 2.3),
        dreams=1024,
    ),
    "vgg16_cifar10": Network(
        Architecture("vgg16_cifar", classes=10, image_size=32, width=0.25),
        str(EXPERIMENTS / "teachers" / "vgg16_cifar10.safetensors"), "cifar10", (0.005, 0.5), 4096, 128,
        (0.42, 0.25, 0.17, 0.12, 0.08), (0.12, 0.1, 0.08),
    ),
    "resnet50_cifar10": Network(
        Architecture("resnet50_cifar_s2", classes=10, image_size=32, width=0.25),
        str(EXPERIMENTS / "teachers" / "resnet50_cifar10.safetensors"), "cifar10", (0.005, 0.5), 4096, 128,
        (0.6, 0.4, 0.3, 0.2), (0.2, 0.15),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A network with its weights, and the photographs."""

    network: Network
    teacher: nn.Module
    photographs: str

    def save(self, path: Path, model: nn.Module, books: Mapping[str, AnyCodebook], storage: str) -> int:
        """Store as an archive; the bytes of the file."""
        architecture = self.network.architecture.to_dict()
        return archive.save(path, model, books, storage=storage, architecture=architecture).bytes


Point = Callable[[Job, Path], nn.Module]
"""Makes the file and gives the network that it holds."""


def ours(megabytes: float, job: Job, path: Path) -> nn.Module:
    """plan=auto and retrain=reconstruct, as `run.py` does it."""
    return _to_size(megabytes, job, crops(job), path, dreams=job.network.dreams)


def trained(megabytes: float, job: Job, path: Path) -> nn.Module:
    """plan=auto without a trellis, reconstruction, then retrain=codebook on new crops in each epoch."""
    recipe = Recipe(epochs=EPOCHS, batch_size=job.network.batch, optimizer="adam", learning_rate=1e-3)
    images = crops(job, CROPS, fresh=True)
    return _to_size(megabytes, job, images, path, recipe=recipe, trainer={"precision": "bf16-mixed"})


def _to_size(megabytes: float, job: Job, images: UnlabeledImages, path: Path, **training: Any) -> nn.Module:
    found = compress_to(
        job.teacher,
        images,
        size=round(1e6 * megabytes),
        reconstruct_on=job.network.images,
        batch_size=job.network.batch,
        architecture=job.network.architecture.to_dict(),
        **training,
    )
    job.save(path, found.model, found.codebooks, "entropy")
    return archive.load(path)


def crops(job: Job, count: int | None = None, *, fresh: bool = False) -> UnlabeledImages:
    """Of the photographs; without a count four for each image that a reconstruction looks at."""
    wanted, network = preprocessing(job.network.architecture), job.network
    settings: dict[str, Any] = {"root": job.photographs, "scale": network.scale, "seed": 0, "fresh": fresh}
    return data.unlabeled("folder", wanted, crops=count or 4 * network.images, **settings)


def clustered(method: str, k: int, storage: str, job: Job, path: Path) -> nn.Module:
    """All weights around k centroids; nothing retrained."""
    found = compress(job.teacher, [{"kind": "weight", "centroids": k}], example_input(job.network.architecture), method)
    job.save(path, found.model, found.codebooks, storage)
    return archive.load(path)


def others(make: Callable[[nn.Module, Path], Mapping[str, Tensor]], job: Job, path: Path) -> nn.Module:
    """What another tool makes."""
    return _with_state(job, make(job.teacher, path))


def _with_state(job: Job, state: Mapping[str, Tensor]) -> nn.Module:
    model = build(job.network.architecture)
    model.load_state_dict({**job.teacher.state_dict(), **state})
    return model


def job_of(network: Network, photographs: str) -> Job:
    """With the network's weights."""
    teacher = build(network.architecture)
    load_weights(teacher, network.weights, network.architecture)
    return Job(network, teacher.to(memory_format=torch.channels_last).eval(), photographs)


def points(network: Network) -> dict[str, Point]:
    """All that is measured, as <method>: <setting>."""
    found: dict[str, Point] = {f"ours: {size:g} MB": partial(ours, size) for size in network.sizes}
    found |= {f"ours, trained: {size:g} MB": partial(trained, size) for size in network.trained}
    found |= {f"NNCodec: qp {qp}": partial(others, partial(nncodec, qp)) for qp in (-32, -28, -24, -22, -20)}
    found |= {f"integers: {bits} bits": partial(others, partial(whole_numbers, bits)) for bits in (8, 4)}
    example = example_input(network.architecture)
    for bits, channels in ((8, None), (6, None), (4, None), (4, 8), (3, 8), (2, 8)):
        setting = f"{bits} bits" if channels is None else f"{bits} bits of {channels} channels"
        found[f"coremltools: {setting}"] = partial(others, partial(coremltools, bits, channels, example))
    found |= {f"k-means: k {k}": partial(clustered, "kmeans", k, "entropy") for k in (256, 64, 32, 16)}
    return found | {
        f"paper's clusters: k {k}": partial(clustered, "equal_population", k, "gzip") for k in (256, 64, 16)
    }


def measure(job: Job, images: str | None, path: Path, points: Mapping[str, Point], wanted: list[str]) -> None:
    """Append those of the points that a csv lacks to it."""
    imagenet = job.network.data == "imagenet"
    form = preprocessing(job.network.architecture)
    test = data.labelled(job.network.data, "test", form, root=images if imagenet else None)
    batches = data.loader(test, 50 if imagenet else 250, shuffle=False)
    done = {f"{row['method']}: {row['setting']}" for row in read(path)}
    todo = {name: point for name, point in points.items() if name not in done}
    todo = {name: point for name, point in todo.items() if not wanted or name in wanted}
    if not todo:
        return
    teacher_NC, labels_N = outputs(job.teacher, batches)
    right = score(teacher_NC, labels_N).correct
    for name, point in todo.items():
        with tempfile.TemporaryDirectory() as folder:
            file, started = Path(folder) / "network", time.perf_counter()
            student = point(job, file).to(memory_format=torch.channels_last)
            seconds, size = time.perf_counter() - started, _size(file)
        found = score(*outputs(student, batches), teacher_NC)
        original = sum(4 * v.numel() for k, v in job.teacher.state_dict().items() if "num_batches" not in k)
        method, setting = name.split(": ")
        row = (
            method,
            setting,
            size,
            original,
            found.n,
            found.correct,
            right,
            found.agreement,
            found.kl,
            round(seconds, 1),
        )
        _append(path, row)
        Console().print(f"{name}: {size:,} bytes, {found.correct} of {found.n} (teacher {right}), {seconds:.0f} s")


def _size(path: Path) -> int:
    """The bytes of a file, or of all files of a package."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _append(path: Path, row: tuple[Any, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        csv.writer(file).writerows([COLUMNS, row] if new else [row])


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a csv; none where it is missing."""
    return list(csv.DictReader(path.open())) if path.exists() else []


SHOWN = 25.0  # points below the original
MARKERS = {
    "ours": "o",
    "ours, trained": "P",
    "NNCodec": "s",
    "integers": "D",
    "k-means": "^",
    "coremltools": "v",
    "paper's clusters": "x",
}
COLOURS = sns.color_palette("colorblind")
TITLES = {
    "effnet_lite0": "EfficientNet-Lite0, ImageNet",
    "vgg16_cifar10": "VGG-16, CIFAR-10",
    "resnet50_cifar10": "ResNet-50, CIFAR-10",
}
STROKES: tuple[Any, ...] = ("-", (0, (5, 1)), "--", " ", "-.", (0, (1, 1)), ":")


def draw(path: Path, name: str) -> None:
    """Top-1 against the file's size, one line a method."""
    rows = read(path)
    with style():
        figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
        axes = figure.subplots()
        teacher, n = 100 * int(rows[0]["teacher_correct"]) / int(rows[0]["n"]), int(rows[0]["n"])
        axes.axhline(teacher, color="0.4", linestyle=":", linewidth=1)
        for number, (method, marker) in enumerate(MARKERS.items()):
            found = sorted((int(r["bytes"]) / 1e6, 100 * int(r["correct"]) / n) for r in rows if r["method"] == method)
            if found:
                look: dict[str, Any] = {"marker": marker, "markersize": 4, "label": method, "color": COLOURS[number]}
                axes.plot(*zip(*found, strict=True), linestyle=STROKES[number], **look)
        axes.set_ylim(teacher - SHOWN, teacher + 0.1 * SHOWN)
        below = sum(100 * int(r["correct"]) / n < teacher - SHOWN for r in rows)
        note = f"; {below} points lie lower" if below else ""
        right_end = (axes.get_xlim()[1], teacher)
        axes.annotate("original", right_end, (0, 2), textcoords="offset points", ha="right", fontsize=6.5)
        axes.set_xscale("log")
        axes.set_xlabel(f"file, MB (float32: {int(rows[0]['original_bytes']) / 1e6:.1f}{note})")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_ylabel(f"top-1 (%), n = {n:,}")
        figure.suptitle(TITLES[name], fontsize=8)
        axes.legend(frameon=False, fontsize=6.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
        folder = path.with_suffix("")
        folder.mkdir(exist_ok=True)
        for written in save(figure, folder):
            Console().print(f"  {written}", soft_wrap=True)


def main() -> None:
    """Measure what is missing, then draw."""
    parser = command_line(__doc__)
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("--images", help="imagenet: the validation tree")
    parser.add_argument("--photographs", help="the folder of unlabeled images; without it, only draw")
    parser.add_argument("--points", nargs="*", default=[], help="only these, such as 'ours: 1.55 MB'")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    path, network = EXPERIMENTS / "frontier" / f"{given.network}.csv", NETWORKS[given.network]
    if given.photographs:
        measure(job_of(network, given.photographs), given.images, path, points(network), given.points)
    draw(path, given.network)


if __name__ == "__main__":
    main()
