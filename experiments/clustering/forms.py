"""What shares a table of centroids, measured: bytes of the file against accuracy, on three networks.

python experiments/clustering/forms.py effnet_lite0 --images <imagenet>/val
python experiments/clustering/forms.py vgg16_cifar10
python experiments/clustering/forms.py resnet50_cifar10

Rows go to forms.csv as they are found; points that are there are skipped. All weights are clustered, nothing is
retrained; centroids are stored as bfloat16, indices entropy coded; accuracies are of the network loaded from its file.
Weights with fewer than 64 values in an output channel (depthwise convolutions) have one table a tensor in all rows.
"""

import argparse
import csv
import re
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.frontier import NETWORKS, Network
from requant import archive, data
from requant.codebook_forms import row_values
from requant.compression import compress
from requant.evaluation import outputs, score
from requant.layers import describe
from requant.models import build, example_input, load_weights, preprocessing
from requant.progress import console

CSV = Path(__file__).parent / "forms.csv"
COLUMNS = (
    "network",
    "form",
    "k",
    "bytes",
    "codebooks",
    "n",
    "correct",
    "teacher_correct",
    "agreement",
    "error",
    "seconds",
)
FEW = 64
SETTINGS: tuple[tuple[str, Sequence[int], dict[str, Any]], ...] = (
    ("tensor", (16,), {}),
    ("channel_scale", (16,), {"granularity": "channel_scale"}),
    ("channel", (8,), {"granularity": "channel"}),
    ("linear", (32,), {"method": "linear"}),
    ("product", (1024,), {"method": "product"}),
    ("tensor", (8, 32, 64), {}),
    ("linear", (16, 64), {"method": "linear"}),
    ("channel_scale", (8, 32), {"granularity": "channel_scale"}),
    ("channel", (16, 4), {"granularity": "channel"}),
    ("product", (256,), {"method": "product"}),
    ("linear, split 2 %", (32, 64), {"method": "linear", "split": 0.02}),
    ("group_scale:128", (8, 16), {"granularity": "group_scale:128"}),
    ("group:4096", (16, 32), {"granularity": "group:4096"}),
    ("tensor, split 2 %", (16,), {"split": 0.02}),
    ("linear, split 10 %", (16, 32, 64), {"method": "linear", "split": 0.1}),
    ("linear, split 2 %", (16,), {"method": "linear", "split": 0.02}),
    ("group:4096", (8,), {"granularity": "group:4096"}),
    ("product", (64,), {"method": "product"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("--images", help="imagenet: the validation tree")
    parser.add_argument("--limit", type=int, help="only so many test images")
    given = parser.parse_args()
    network = NETWORKS[given.network]
    teacher = build(network.architecture)
    load_weights(teacher, network.weights, network.architecture)
    measure(given.network, network, teacher.eval(), given.images, given.limit)


def measure(name: str, network: Network, teacher: nn.Module, images: str | None, limit: int | None) -> None:
    """Append the points that are missing."""
    done = {(row["network"], row["form"], int(row["k"])) for row in read()}
    todo = [(f, k, rule) for f, ks, rule in SETTINGS for k in ks if (name, f, k) not in done]
    test = data.labelled(network.data, "test", preprocessing(network.architecture), root=images, limit=limit)
    batches = data.loader(test, 50 if network.data == "imagenet" else 250, shuffle=False)
    teacher_NC, labels_N = outputs(teacher.to(memory_format=torch.channels_last), batches)
    right = score(teacher_NC, labels_N).correct
    for form, k, rule in todo:
        started = time.perf_counter()
        model, report, error = stored(network, teacher, k, rule)
        seconds = time.perf_counter() - started
        found = score(*outputs(model.to(memory_format=torch.channels_last), batches), teacher_NC)
        counts = (report.bytes, report.parts["codebooks"], found.n, found.correct, right)
        append((name, form, k, *counts, f"{found.agreement:.4f}", f"{error:.4e}", f"{seconds:.1f}"))
        console.print(f"{name}, {form}, k = {k}: {report.bytes:,} bytes, {found.correct} of {found.n}, {seconds:.0f} s")


def stored(
    network: Network, teacher: nn.Module, k: int, rule: dict[str, Any]
) -> tuple[nn.Module, archive.ArchiveReport, float]:
    """The network loaded from its file, the file, and the squared error over all weights' squares."""
    example = example_input(network.architecture)
    tensors = [t for t in describe(teacher, example) if t.kind == "weight"]
    few = [re.escape(t.name) for t in tensors if row_values(t.shape) < FEW]
    rules = [{"name": f"^({'|'.join(few)})$", "kind": "weight", "centroids": min(k, 64)}] if few else []
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", message=".*fewer than.*")
        found = compress(teacher, [*rules, {"kind": "weight", "centroids": k, **rule}], example)
        student, books = archive.shortened(found.model, found.codebooks, centroids="bfloat16")
        path = Path(folder) / "network.h5"
        report = archive.save(path, student, books, storage="entropy", architecture=network.architecture.to_dict())
        weights = {t.name: teacher.state_dict()[t.name].numpy() for t in tensors}
        error = sum(books[name].squared_error(w) for name, w in weights.items())
        return archive.load(path), report, error / sum(float(np.square(w, dtype=float).sum()) for w in weights.values())


def read() -> list[dict[str, str]]:
    return list(csv.DictReader(CSV.open())) if CSV.exists() else []


def append(row: tuple[Any, ...]) -> None:
    new = not CSV.exists()
    with CSV.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, row] if new else [row])


if __name__ == "__main__":
    main()
