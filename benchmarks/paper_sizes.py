"""What the paper's size of VGG-16 says of its clusters: bits a weight that 32 clusters take in HDF5 with gzip.

python -m benchmarks.paper_sizes

The paper's file is 81.10 % smaller than VGG-16's 553.4 MB with layers 14 and 15 at 32 centroids; what is left for them
follows from what the other layers take. Their weights cannot be had here: they are stood for by those of the CIFAR-10
teacher, and by values of known distributions. Ranges of linear cells grow with the number of values, so that these are
as many as layer 15 has.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file
from torch import nn

from benchmarks.arguments import command_line, print_table
from requant import archive
from requant.clustering import cluster
from requant.codebook import Codebook

TEACHER = Path(__file__).parents[1] / "experiments" / "teachers" / "vgg16_cifar10.safetensors"
LAYER_14, LAYER_15, ALL = 25088 * 4096, 4096 * 4096, 138_357_544
REDUCTION, K = 0.8110, 32
METHODS = ("equal_population", "kmeans", "linear")


def sources() -> dict[str, NDArray[np.float32]]:
    """Weights by where they come from."""
    state = load_file(TEACHER)
    dense = [name for name, value in state.items() if value.ndim == 2][:2]
    found = {f"CIFAR-10 teacher, {name}": state[name].reshape(-1) for name in dense}
    chance = np.random.default_rng(0)
    found["Gaussian"] = chance.normal(size=LAYER_15).astype(np.float32)
    found["Laplace"] = chance.laplace(size=LAYER_15).astype(np.float32)
    found["Student's t, 5 degrees"] = chance.standard_t(5, size=LAYER_15).astype(np.float32)
    return found


def gzip_bits(values: NDArray[np.float32], folder: Path, method: str | None) -> tuple[float, float]:
    """Bits a value in the file, clustered or as they are, and the entropy of the indices."""
    book = cluster(values, K, method) if method else None
    stored = torch.from_numpy(book.dense() if isinstance(book, Codebook) else values)
    model = nn.ParameterDict({"x": nn.Parameter(stored)})
    report = archive.save(folder / "x.h5", model, {"x": book} if book else {}, storage="gzip")
    return 8 * report.bytes / values.size, book.entropy_bits if book else float("nan")


def main() -> None:
    """Measure and show."""
    command_line(__doc__).parse_args()
    table = Table(
        "weights", "n", "as they are", *(f"{m}: gzip (entropy)" for m in METHODS), title=f"bits a weight, k = {K}"
    )
    with tempfile.TemporaryDirectory() as name:
        for source, values in sources().items():
            plain, _ = gzip_bits(values, Path(name), None)
            cells = ("{:.2f} ({:.2f})".format(*gzip_bits(values, Path(name), method)) for method in METHODS)
            table.add_row(source, f"{values.size:,}", f"{plain:.2f}", *cells)
    print_table(table)
    left, rest, clustered = (1 - REDUCTION) * 4 * ALL, ALL - LAYER_14 - LAYER_15, LAYER_14 + LAYER_15
    for bits in (32.0, 29.6):
        of_layers = 8 * (left - rest * bits / 8) / clustered
        Console().print(
            f"{left:,.0f} bytes in all; others at {bits} bits: {of_layers:.2f} bits a weight for layers 14 and 15"
        )


if __name__ == "__main__":
    main()
