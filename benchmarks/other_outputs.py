"""Networks whose outputs are no scores of one class, compressed for what these are, and for what they are not.

python -m benchmarks.other_outputs <task> --images <imagenet>/val --photographs <folder>      (denoising: no --images)

Tasks: `embedding` (EfficientNet-Lite0 without its classifier: 1,280 values an image), `map` (classified at each of 7 by
7 positions), `denoising` (a network of seven convolutions, trained here on four fifths of the photographs; values of
each pixel). Rows go to experiments/other_outputs/results.csv; those that are there are skipped. Measured on the
network loaded back from its file, on images that nothing else looked at.
"""

import csv
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.arguments import command_line
from examples.denoising import NOISE, PLAIN, Denoiser, decibels, train
from requant import archive, data
from requant.automatic import compress_to
from requant.compression import compress
from requant.machine import keep_memory
from requant.models import Architecture, build, load_weights, preprocessing
from requant.outputs import KINDS, Outputs
from requant.recipe import Recipe
from requant.retraining import Movement

PATH = Path(__file__).parents[1] / "experiments" / "other_outputs" / "results.csv"
COLUMNS = ("task", "way", "bytes", "original_bytes", "n", "lost", "measure", "original", "found", "seconds")
ARCHITECTURE = Architecture("efficientnet_lite0")
TRAINED, STEPS = 8000, 3000  # crops, and steps of training the denoiser


@dataclass(frozen=True)
class Task:
    """A network, what its outputs are, and what they are good for.

    Attributes:
        make: the network without its weights.
        teacher: with them.
        outputs: what its outputs are.
        seen: unlabeled images, for compressing.
        test: batches that nothing else looks at.
        measure: what `quality` says, and `quality`: of outputs for the test images.
        sizes: of the files, bytes.
        crops: how many images a reconstruction looks at.

    """

    make: Callable[[], nn.Module]
    teacher: nn.Module
    outputs: Outputs
    seen: Any
    test: list[Tensor]
    measure: str
    quality: Callable[[Tensor], float]
    sizes: tuple[int, ...]
    crops: int = 512


class ClassMap(nn.Module):
    """EfficientNet-Lite0's classifier at each position of its last convolution's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = without_classifier()
        self.classifier = nn.Conv2d(1280, 1000, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1000, 7, 7)."""
        found: Tensor = self.classifier(self.inner.extract_features(images))
        return found


def without_classifier() -> Any:
    """EfficientNet-Lite0 that ends where its classifier begins."""
    model: Any = build(ARCHITECTURE)
    model._fc = nn.Identity()
    return model


def whole() -> Any:
    """With its weights and its classifier."""
    model: Any = build(ARCHITECTURE)
    load_weights(model, "imagenet", ARCHITECTURE)
    return model.eval()


def imagenet(images: str) -> tuple[list[Tensor], Tensor]:
    """Batches of the validation images, and their labels."""
    test = data.labelled("imagenet", "test", preprocessing(ARCHITECTURE), root=images)
    batches, labels = zip(*data.loader(test, 50, shuffle=False), strict=True)
    return list(batches), torch.cat(labels)


def embedding(images: str, photographs: str) -> Task:
    """Values: what the original's classifier makes of the student's embeddings shows what they are worth."""
    original = whole()
    classifier, teacher = original._fc, original
    teacher._fc = nn.Identity()
    batches, labels = imagenet(images)

    def correct(found: Tensor) -> float:
        with torch.no_grad():
            return int((classifier(found).argmax(1) == labels).sum())

    crops = data.unlabeled("folder", preprocessing(ARCHITECTURE), root=photographs, scale=(0.25, 1.0), crops=2048)
    sizes = 1_350_000, 1_120_000
    return Task(
        without_classifier, teacher, KINDS["values"], crops, batches, "correct by its classifier", correct, sizes
    )


def class_map(images: str, photographs: str) -> Task:
    """Classes of each position: on how many images the shares of all positions together name the right class."""
    original, teacher = whole(), ClassMap().eval()
    state = {f"inner.{name}": value for name, value in original.state_dict().items() if not name.startswith("_fc.")}
    state |= {"classifier.weight": original._fc.weight[:, :, None, None], "classifier.bias": original._fc.bias}
    teacher.load_state_dict(state)
    batches, labels = imagenet(images)

    def correct(found: Tensor) -> float:
        return int((found.mean((2, 3)).argmax(1) == labels).sum())

    crops = data.unlabeled("folder", preprocessing(ARCHITECTURE), root=photographs, scale=(0.25, 1.0), crops=2048)
    sizes = 1_860_000, 1_550_000
    return Task(ClassMap, teacher, KINDS["softmax"], crops, batches, "correct by the mean", correct, sizes)


def denoising(images: str | None, photographs: str) -> Task:  # noqa: ARG001
    """Values of each pixel: the signal to noise ratio of what comes out."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"root": photographs, "scale": (0.005, 0.05), "seed": 0}
    seen = pixels(data.unlabeled("folder", PLAIN, part="seen", crops=TRAINED, **settings))
    held_out = pixels(data.unlabeled("folder", PLAIN, part="held_out", crops=500, **settings))
    noisy, test = (clean + NOISE * torch.randn_like(clean) for clean in (seen, held_out))
    teacher = train(noisy, seen, STEPS)

    batches, quality = list(test.split(50)), partial(decibels, clean=held_out)
    return Task(Denoiser, teacher, KINDS["values"], noisy, batches, "PSNR, dB", quality, (19_000, 13_000, 9_000), 1024)


def pixels(images: data.UnlabeledImages) -> Tensor:
    """All of them (N, 3, H, W)."""
    return torch.cat(list(data.loader(images, 100, shuffle=False)))


TASKS: dict[str, Callable[[Any, str], Task]] = {"embedding": embedding, "map": class_map, "denoising": denoising}
Way = Callable[[Task, Path], None]
"""Makes the file."""


def ours(size: int, outputs: str | None, task: Task, path: Path, **settings: Any) -> None:
    """plan=auto and reconstruction; `outputs`: taken for these, None: for what they are."""
    kind = outputs or task.outputs.name
    found = compress_to(task.teacher, task.seen, size=size, outputs=kind, **{"reconstruct_on": task.crops, **settings})
    archive.save(path, found.model, found.codebooks, storage="entropy")


def retrained(size: int, task: Task, path: Path) -> None:
    """Its codebooks trained after that, more slowly than where classes are told apart: errors are a thousandth here."""
    recipe = Recipe(epochs=8, batch_size=32, optimizer="adam", learning_rate=1e-4)
    ours(size, None, task, path, recipe=recipe, movement=Movement(0.002, 0.002))


def clustered(k: int, task: Task, path: Path) -> None:
    """All weights around k centroids, by k-means."""
    found = compress(task.teacher, [{"kind": "weight", "centroids": k}], task.test[0][:1])
    archive.save(path, found.model, found.codebooks, storage="entropy")


def ways(name: str, task: Task) -> dict[str, Way]:
    """All that is measured."""
    found: dict[str, Way] = {f"ours, {size / 1e6:g} MB": partial(ours, size, None) for size in task.sizes}
    least, wrong = task.sizes[-1], "softmax" if task.outputs.name == "values" else "values"
    found[f"ours, taken for {wrong}, {least / 1e6:g} MB"] = partial(ours, least, wrong)
    found[f"rounded only, {least / 1e6:g} MB"] = partial(ours, least, None, reconstruct_on=0)
    if name == "denoising":
        found[f"ours, trained, {least / 1e6:g} MB"] = partial(retrained, least)
    return found | {f"k-means, k = {k}": partial(clustered, k) for k in (32, 16, 8)}


@torch.no_grad()
def outputs_of(task: Task, model: nn.Module) -> Tensor:
    """For the test images."""
    return torch.cat([task.outputs.of(model, batch) for batch in task.test])


def measure(name: str, task: Task, done: Iterable[str]) -> None:
    """Append the rows that the csv lacks."""
    wanted = outputs_of(task, task.teacher)
    original = round(task.quality(wanted), 4)
    size = sum(4 * v.numel() for key, v in task.teacher.state_dict().items() if "num_batches" not in key)
    for way, make in ways(name, task).items():
        if way in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path, started = Path(folder) / "network", time.perf_counter()
            make(task, path)
            seconds, stored = time.perf_counter() - started, path.stat().st_size
            found = outputs_of(task, archive.load(path, task.make()))
        lost, quality = task.outputs.lost(found, wanted), round(task.quality(found), 4)
        row = (name, way, stored, size, len(wanted), lost, task.measure, original, quality, round(seconds, 1))
        PATH.parent.mkdir(exist_ok=True)
        new = not PATH.exists()
        with PATH.open("a", newline="") as file:
            csv.writer(file).writerows([COLUMNS, row] if new else [row])
        Console().print(
            f"{name}, {way}: {stored:,} bytes, {lost:.2%} {task.outputs.losing}; {task.measure} {quality:g} "
            f"(original {original:g}), {seconds:.0f} s",
            highlight=False,
        )


def main() -> None:
    """Measure what is missing."""
    parser = command_line(__doc__)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--images", help="the validation tree of ImageNet")
    parser.add_argument("--photographs", required=True, help="the folder of unlabeled images")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    rows = list(csv.DictReader(PATH.open())) if PATH.exists() else []
    task = TASKS[given.task](given.images, given.photographs)
    measure(given.task, task, [row["way"] for row in rows if row["task"] == given.task])


if __name__ == "__main__":
    main()
