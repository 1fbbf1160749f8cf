"""Archives beside NNCodec: bytes, and weights a second, on the same clustered tensors; and how long loading takes.

python -m benchmarks.bench_archive sizes [<network> ...] [--clusterings grid ...]
python -m benchmarks.bench_archive load     full VGG-16, and a small network beside torch.load

Rows go to experiments/archive/sizes.csv.

Networks are clustered without images: the paper's equal population, k-means, and a grid as plan=auto makes them.
NNCodec (pip install --no-deps nncodec, and opencv-python-headless) stores the clustered tensors in its codebook mode,
where its indices are the same, and the original ones at the quantization step whose squared error is nearest to the
clustering's. Rates are medians of `ROUNDS`, all ways in turn; what takes longer than a minute is done once.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import nn

from benchmarks.arguments import command_line, print_table
from benchmarks.frontier import NETWORKS
from requant import archive
from requant.auto import on_grid
from requant.codebook import Codebook
from requant.compression import compress, place
from requant.models import Architecture, build, example_input, load_weights

PATH = Path(__file__).parents[1] / "experiments" / "archive" / "sizes.csv"
COLUMNS = (
    "network",
    "clustering",
    "stored_by",
    "bytes",
    "bits_a_weight",
    "indices_of_entropy",
    "file_of_bound",
    "encode_m_per_s",
    "decode_m_per_s",
    "squared_error",
)
ROUNDS = 3
SLOW = 60  # seconds, beyond which once is enough
QP = range(-44, -11)  # NNCodec's quantization parameter: lower is finer

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Clustered:
    """A network on its codebooks, and as it was."""

    name: str
    original: nn.Module
    model: nn.Module
    books: Mapping[str, Codebook]

    @property
    def weights(self) -> int:
        """How many values are clustered."""
        return sum(book.indices.size for book in self.books.values())

    @property
    def entropy_bytes(self) -> float:
        """Of the indices, each tensor by its own distribution."""
        return sum(book.indices.size * book.entropy_bits for book in self.books.values()) / 8

    @property
    def bound(self) -> float:
        """Entropy, centroids and all other tensors as they are."""
        dense = [value for name, value in self.model.state_dict().items() if name not in self.books]
        centroids = 4 * sum(book.k for book in self.books.values())
        return float(self.entropy_bytes + centroids + sum(value.numel() * value.element_size() for value in dense))

    def error(self, found: Mapping[str, NDArray[Any]]) -> float:
        """Squared error of the clustered tensors against the original's, a value."""
        state = self.original.state_dict()
        total = sum(float(np.square(found[name].astype(np.float64) - state[name].numpy()).sum()) for name in self.books)
        return total / self.weights


CLUSTERINGS = ("equal_population, k = 32", "kmeans, k = 256", "kmeans, k = 32", "grid")


def clustered(network: str, clustering: str) -> Clustered:
    """All weights of a network, biases at one centroid where the paper's clusters are asked for."""
    job = NETWORKS[network]
    model = build(job.architecture)
    load_weights(model, job.weights, job.architecture)
    model.eval()
    if clustering == "grid":
        names = [name for name, value in model.named_parameters() if value.ndim > 1]
        weights = {name: p.detach() for name, p in model.named_parameters() if name in names}
        books = {name: on_grid(weight, 0.7 * float(weight.std())) for name, weight in weights.items()}
        found = build(job.architecture)
        found.load_state_dict(model.state_dict())
        place(found, books)
        return Clustered(network, model, found.eval(), books)
    method, k = clustering.split(", k = ")
    rules: list[dict[str, Any]] = [{"kind": "weight", "centroids": int(k)}]
    if method == "equal_population":
        rules.append({"kind": "bias", "centroids": 1})
    made = compress(model, rules, example_input(job.architecture), method)
    books = {name: book for name, book in made.codebooks.items() if isinstance(book, Codebook)}
    return Clustered(network, model, made.model, books)


@dataclass(frozen=True)
class Way:
    """How to make a file, and how to read it: the tensors by name."""

    write: Callable[[Path], object]
    read: Callable[[Path], Mapping[str, NDArray[Any]]]


def ways(job: Clustered) -> dict[str, Way]:
    """Ours and NNCodec's."""

    def ours(storage: str) -> Way:
        architecture = NETWORKS[job.name].architecture.to_dict()

        def write(path: Path) -> object:
            return archive.save(path, job.model, job.books, storage=storage, architecture=architecture)

        return Way(write, lambda path: {name: book.dense() for name, book in archive.read(path).codebooks.items()})

    found = {storage: ours(storage) for storage in archive.STORAGES}
    found["NNCodec, codebooks"] = nncodec(arrays(job.model), qp=-38, use_dq=False, codebook_mode=1)
    return found


def arrays(model: nn.Module) -> Arrays:
    """What NNCodec takes: all but the batch norms' counters."""
    state = model.state_dict().items()
    return {name: np.ascontiguousarray(v.numpy()) for name, v in state if v.dtype == torch.float32}


def nncodec(tensors: Arrays, **options: Any) -> Way:
    """NNCodec (ISO/IEC 15938-17) with its defaults and some options."""
    from nncodec import nnc

    return Way(lambda path: nnc.compress(dict(tensors), bitstream_path=str(path), **options), _read_nncodec)


def _read_nncodec(path: Path) -> dict[str, NDArray[Any]]:
    from nncodec import nnc

    return {name: np.asarray(value) for name, value in nnc.decompress(str(path)).items()}


def matching(job: Clustered, path: Path) -> tuple[str, Way]:
    """NNCodec on the original, its step the one whose error is nearest to the clustering's."""
    wanted = job.error({name: book.dense() for name, book in job.books.items()})
    errors: dict[int, float] = {}

    def error(qp: int) -> float:
        if qp not in errors:
            nncodec(arrays(job.original), qp=qp, use_dq=True).write(path)
            errors[qp] = job.error(_read_nncodec(path))
        return errors[qp]

    low, high = QP.start, QP.stop - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if error(middle) < wanted else (low, middle)
    qp = min((low, high), key=lambda qp: abs(np.log(error(qp) / wanted)))
    return f"NNCodec, original, qp {qp}", nncodec(arrays(job.original), qp=qp, use_dq=True)


def sizes(network: str, clustering: str, folder: Path) -> list[tuple[Any, ...]]:
    """A row for each way."""
    job = clustered(network, clustering)
    todo = ways(job)
    if clustering in ("grid", "kmeans, k = 256"):
        todo |= dict([matching(job, folder / "x")])
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in todo}
    errors, size = {}, {}
    for _ in range(ROUNDS):
        for name, way in todo.items():
            if seconds[name] and sum(seconds[name][0]) > SLOW:
                continue
            begin = time.perf_counter()
            way.write(folder / "x")
            middle = time.perf_counter()
            found = way.read(folder / "x")
            seconds[name].append((middle - begin, time.perf_counter() - middle))
            errors[name], size[name] = job.error(found), (folder / "x").stat().st_size
    rows = []
    for name in todo:
        encode, decode = (job.weights / statistics.median(s[i] for s in seconds[name]) / 1e6 for i in (0, 1))
        rows.append(
            (
                network,
                clustering,
                name,
                size[name],
                round(8 * size[name] / job.weights, 3),
                round(_indices(job, name, folder / "x") / job.entropy_bytes, 4),
                round(size[name] / job.bound, 4),
                round(encode, 2),
                round(decode, 2),
                f"{errors[name]:.4g}",
            )
        )
    return rows


def _indices(job: Clustered, storage: str, path: Path) -> float:
    """Bytes of a file's indices; not a number where it has none."""
    if storage not in archive.STORAGES:
        return float("nan")
    return archive.save(path, job.model, job.books, storage=storage).parts["indices"]


def show(rows: list[dict[str, str]]) -> None:
    """The table of all rows."""
    table = Table(*(column.replace("_", " ") for column in COLUMNS))
    for row in rows:
        table.add_row(*(f"{int(row[c]):,}" if c == "bytes" else row[c] for c in COLUMNS))
    print_table(table)


LOADING = """
import json, sys, time
from pathlib import Path
import torch, h5py, zstandard, safetensors
from requant import archive
import requant.archive.loading, requant.models
from requant.models import Architecture, build
torch.set_num_threads(2)
def memory(field):
    return 1024 * int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])
path = Path(sys.argv[1])
torch.nn.Linear(2, 2)(torch.zeros(1, 2))
times = []
before = memory("VmRSS")
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    found = archive.load(path) if path.suffix == ".h5" else build(Architecture(**json.loads(sys.argv[3])))
    if path.suffix != ".h5":
        found.load_state_dict(torch.load(path, weights_only=True))
    times.append(time.perf_counter() - begin)
    peak = memory("VmHWM") - before
    size = sum(4 * value.numel() for value in found.state_dict().values())
    del found
plain = []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    torch.load(path, weights_only=True) if path.suffix != ".h5" else archive.read(path)
    plain.append(time.perf_counter() - begin)
print(json.dumps([sorted(times)[len(times) // 2], sorted(plain)[len(plain) // 2], peak / size]))
"""


def load(folder: Path) -> None:
    """Seconds to a network that is ready, seconds to its tensors alone, and peak memory against its float32 size.

    Medians of processes that load one kind of file each, all kinds in turn.
    """
    columns = ("network", "file", "bytes", "network, s", "of torch.save's", "tensors alone, s", "peak memory / float32")
    table = Table(*columns)
    small = Architecture("vgg_small", classes=10, channels=1, image_size=28)
    for architecture, k, rounds, turns in ((small, 16, 21, 7), (Architecture("vgg16"), 32, 1, 1)):
        files = _files(architecture, k, folder)
        runs = [[_loaded(file, rounds, architecture) for file in files] for _ in range(turns)]
        by_file = zip(*runs, strict=True)
        found = [[statistics.median(values) for values in zip(*of_file, strict=True)] for of_file in by_file]
        for file, (seconds, plain, peak) in zip(files, found, strict=True):
            ratio = seconds / found[-1][0]
            cells = (f"{file.stat().st_size:,}", f"{seconds:.4f}", f"{ratio:.2f}", f"{plain:.4f}", f"{peak:.2f}")
            table.add_row(architecture.name, file.stem, *cells)
            file.unlink()
    print_table(table)


def _loaded(file: Path, rounds: int, architecture: Architecture) -> list[float]:
    command = [sys.executable, "-c", LOADING, str(file), str(rounds), json.dumps(architecture.to_dict())]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout)
    return found


def _files(architecture: Architecture, k: int, folder: Path) -> list[Path]:
    """The network with random weights, as each storage and as torch.save writes it."""
    torch.manual_seed(0)
    found = compress(build(architecture), [{"kind": "weight", "centroids": k}], example_input(architecture))
    files = [folder / f"{storage}.h5" for storage in archive.STORAGES]
    for file in files:
        archive.save(file, found.model, found.codebooks, storage=file.stem, architecture=architecture.to_dict())
    torch.save(found.model.state_dict(), folder / "torch_save.pt")
    return [*files, folder / "torch_save.pt"]


def main() -> None:
    """Measure and show."""
    warnings.filterwarnings("ignore")
    parser = command_line(__doc__)
    parser.add_argument("what", choices=("sizes", "load", "show"))
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="network")
    parser.add_argument("--clusterings", nargs="*", default=list(CLUSTERINGS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.what == "load":
            load(Path(name))
            return
        done = list(csv.DictReader(PATH.open())) if PATH.exists() else []
        for network in given.networks if given.what == "sizes" else ():
            for clustering in given.clusterings:
                done = [row for row in done if (row["network"], row["clustering"]) != (network, clustering)]
                found = sizes(network, clustering, Path(name))
                done += [dict(zip(COLUMNS, map(str, row), strict=True)) for row in found]
                _write(done)
    show(done)


def _write(rows: list[dict[str, str]]) -> None:
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with PATH.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
