"""Clustering against other libraries: seconds, squared error over the optimum, memory; ratios from one run.

python -m benchmarks.bench_clustering; --help lists how to measure only some, and to write the tables to a file.

Each library has a process of its own for each number of centroids, so that its peak memory is its own and what takes
too long can be ended; what is left out is named. Needs the extras models and peers.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import command_line, print_table
from benchmarks.clusterers import CLUSTERERS, MODULES, why_not
from benchmarks.clustering_data import DATA

CENTROIDS = (16, 32, 256)
LIMIT = 90.0  # seconds for a library, start-up included
BUDGET = 15.0  # seconds after which no more runs are made
SHOWN = 90  # characters of what a library that failed says
COLUMNS = ("method", "k", "seconds", "copies", "x kmeans", "error / optimum", "bytes a value", "runs")

Row: TypeAlias = tuple[str, int, dict[str, float] | str]
"""Method, centroids, and what was measured or why it was not."""


def main() -> None:
    """Measure all, one set of arrays after another, and show a table for each."""
    parser = command_line(__doc__)
    parser.add_argument("--data", action="append", choices=list(DATA))
    parser.add_argument("--centroids", action="append", type=int)
    parser.add_argument("--methods", action="append", choices=list(CLUSTERERS))
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--budget", type=float, default=BUDGET)
    parser.add_argument("--markdown", type=Path, help="write the tables to this file as well")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    centroids = sorted(args.centroids or CENTROIDS)
    if args.one:
        measure_one(args.one[0], Path(args.one[1]), centroids[0], args.budget)
        return
    text = [machine()]
    Console(width=110).print(text[0])
    for name in args.data or DATA:
        title, rows = measure_data(name, args.methods or list(CLUSTERERS), centroids, args.limit, args.budget)
        cells = [_cells(row, rows) for row in rows]
        show(title, cells)
        text.append(markdown(title, cells))
        if args.markdown:
            args.markdown.write_text("\n".join(text))


def measure_one(method: str, file: Path, k: int, budget: float) -> None:
    """In the process of its own: print what was measured as JSON."""
    from benchmarks.measuring import measure

    with np.load(file) as arrays:
        values = [arrays[name] for name in arrays.files]
    print(json.dumps(measure(method, values, k, budget)))


def measure_data(
    name: str, methods: list[str], centroids: list[int], limit: float, budget: float
) -> tuple[str, list[Row]]:
    """A title that says what was clustered and how busy the machine was, and what was measured."""
    arrays = DATA[name]()
    largest, total = max(array.size for array in arrays), sum(array.size for array in arrays)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.npz"
        np.savez(file, *arrays)
        arrays.clear()
        before = os.getloadavg()[0]
        for method, k in product(methods, centroids):
            rows.append((method, k, why_not(method, largest, k) or _measured(method, k, file, limit, budget)))
    load = f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    return f"{name}: {total:,} values, the largest array {largest:,}; {load}", rows


def _measured(method: str, k: int, file: Path, limit: float, budget: float) -> dict[str, float] | str:
    """What a process of its own measures, or why it does not."""
    command = [sys.executable, "-m", "benchmarks.bench_clustering", "--one", method, str(file)]
    command += ["--centroids", str(k), "--budget", str(budget)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if done.returncode:
        return f"failed: {(done.stderr.splitlines() or ['killed'])[-1][-SHOWN:]}"
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cells(row: Row, rows: list[Row]) -> list[str]:
    method, k, found = row
    if isinstance(found, str):
        return [method, str(k), found, *[""] * (len(COLUMNS) - 3)]
    peers = {(m, c): f for m, c, f in rows if not isinstance(f, str)}
    ours, optimum = peers.get(("kmeans", k)), peers.get(("exact", k))
    return [
        method,
        str(k),
        f"{found['seconds']:.3f}",
        f"{found['seconds'] / found['copy']:.1f}",
        f"{found['seconds'] / ours['seconds']:.2f}" if ours else "",
        f"{found['error'] / optimum['error']:.4f}" if optimum else "",
        f"{found['bytes']:.1f}",
        f"{found['runs']:.0f}",
    ]


def show(title: str, cells: list[list[str]]) -> None:
    """Print a table."""
    table = Table(*COLUMNS, title=title, title_justify="left")
    for row in cells:
        table.add_row(*row)
    print_table(table)


def markdown(title: str, cells: list[list[str]]) -> str:
    """The same as text for a page."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *cells]
    return f"\n### {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine() -> str:
    """What it was measured on."""
    packages = {"numpy": "numpy"} | {name: name if name != "faiss" else "faiss-cpu" for name in MODULES}
    versions = (f"{name} {version(package)}" for name, package in packages.items() if why_not(name, 0, 0) is None)
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}, {', '.join(versions)}"


if __name__ == "__main__":
    main()
