"""Seconds, peak memory and squared error of one way to cluster; for a process of its own (Linux)."""

import time
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.clusterers import CLUSTERERS, Clusterer, Clusters
from requant.codebook import Codebook

RUNS = 7
WARM_UP = 4096  # values: what is compiled or imported on the first call is not measured


def measure(name: str, arrays: list[NDArray[np.float32]], k: int, budget: float) -> dict[str, float]:
    """Cluster the arrays one after another, several times: `RUNS`, or fewer once `budget` seconds have passed.

    Returns:
        seconds and copy (to cluster and to copy the arrays, medians of `runs` that take turns); error (squared,
        summed); bytes (peak memory beyond the arrays, a value of the largest array, the result included).

    """
    clusterer = CLUSTERERS[name]
    for _ in range(2):
        clusterer(arrays[0][:WARM_UP], min(k, 16))
    largest = max(array.size for array in arrays)
    rounds: list[tuple[float, float]] = []
    error, extra = 0.0, 0
    started = time.perf_counter()
    while not rounds or (len(rounds) < RUNS and time.perf_counter() - started < budget):
        copied = sum(_seconds_to_copy(array) for array in arrays)
        taken = 0.0
        for array in arrays:
            found, seconds, memory = _clustered(clusterer, array, k)
            taken += seconds
            if not rounds:
                error += _squared_error(array, found)
                extra = max(extra, memory if array.size == largest else 0)
            del found
        rounds.append((taken, copied))
    return {
        "seconds": median(taken for taken, _ in rounds),
        "copy": median(copied for _, copied in rounds),
        "runs": len(rounds),
        "error": error,
        "bytes": extra / largest,
    }


def _clustered(clusterer: Clusterer, array: NDArray[np.float32], k: int) -> tuple[Clusters, float, int]:
    """The clusters, the seconds, and the bytes of peak memory that they took."""
    _reset_peak()
    before = _status("VmRSS")
    begin = time.perf_counter()
    found = clusterer(array, k)
    return found, time.perf_counter() - begin, _status("VmHWM") - before


def _seconds_to_copy(array: NDArray[np.float32]) -> float:
    begin = time.perf_counter()
    array.copy()
    return time.perf_counter() - begin


def _squared_error(values: NDArray[np.float32], found: Clusters) -> float:
    """To the centroids in float32, as an archive holds them."""
    centroids, indices = found
    return Codebook.from_unsorted(centroids.astype(np.float32), indices).squared_error(values)


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    """Bytes, of this process."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{field}:")[1].split()[0])
