"""Squared error and entropy of all methods on two layers, for results.csv: python experiments/clustering/measure.py.

The layers: the last convolution of EfficientNet-Lite0 (ImageNet weights) and the largest layer of the VGG-16 teacher
(experiments/teachers; in half precision, so of few distinct values).
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from requant.clustering import cluster
from requant.codebook import Codebook
from requant.models import Architecture, build, load_weights

HERE = Path(__file__).parent
POWERS = range(1, 9)
MANY = range(9, 13)  # equal cells beyond 256: most stay empty, and those that do not cost what their entropy is
BITS = np.arange(0.5, 7.6, 0.5)


def main() -> None:
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["layer", "method", "k", "used", "bits", "error"])
        for layer, values in layers():
            for method, k, book in books(values):
                error = book.squared_error(values) / float(np.var(values, dtype=np.float64)) / values.size
                writer.writerow([layer, method, k, book.k, f"{book.entropy_bits:.4f}", f"{error:.4e}"])
                file.flush()


def layers() -> Iterator[tuple[str, np.ndarray]]:
    architecture = Architecture("efficientnet_lite0")
    model = build(architecture)
    load_weights(model, "imagenet", architecture)
    convolutions = {name: p.detach().numpy() for name, p in model.named_parameters() if p.ndim == 4}
    yield "EfficientNet-Lite0, last convolution", list(convolutions.values())[-1]
    teacher = load_file(HERE.parent / "teachers" / "vgg16_cifar10.safetensors")
    yield "VGG-16 teacher, largest layer", max(teacher.values(), key=np.size).astype(np.float32)


def books(values: np.ndarray) -> Iterator[tuple[str, int, Codebook]]:
    for method in ("equal_population", "kmeans", "exact", "linear", "faiss"):
        for power in POWERS if method != "linear" else (*POWERS, *MANY):
            yield method, 1 << power, cluster(values, 1 << power, method)
    for bits in BITS:
        yield "entropy", 4096, cluster(values, 4096, "entropy", bits=bits)


if __name__ == "__main__":
    main()
