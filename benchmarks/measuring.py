"""Seconds, peak memory and squared error of one way to cluster; for a process of its own (Linux)."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.clusterers import CLUSTERERS, Clusters
from requant.codebook import Codebook, index_dtype

RUNS = 7
BUDGET = 15.0  # seconds after which no more runs are made
WARM_UP = 4096  # values: what is compiled or imported on the first call is not measured


def measure(name: str, arrays: list[NDArray[np.float32]], k: int) -> dict[str, float]:
    """Cluster the arrays one after another, several times.

    Returns:
        seconds (median), least, runs; copy (seconds to copy the arrays, median of as many, taken in turn); error
        (squared, summed); bytes (peak memory beyond the arrays, a value of the largest array, the result included).

    """
    clusterer = CLUSTERERS[name]
    for _ in range(2):
        clusterer(arrays[0][:WARM_UP], min(k, 16))
    largest = max(arrays, key=len)
    _reset_peak()
    before = _status("VmRSS")
    found: Clusters | None = clusterer(largest, k)
    extra = _status("VmHWM") - before
    assert found is not None
    del found
    seconds: list[float] = []
    copies: list[float] = []
    squared_error = 0.0
    started = time.perf_counter()
    while not seconds or (len(seconds) < RUNS and time.perf_counter() - started < BUDGET):
        copies.append(sum(_seconds_to_copy(array) for array in arrays))
        taken = 0.0
        for array in arrays:
            begin = time.perf_counter()
            found = clusterer(array, k)
            taken += time.perf_counter() - begin
            squared_error += 0.0 if seconds else _squared_error(array, found)
            del found
        seconds.append(taken)
    return {
        "seconds": statistics.median(seconds),
        "least": min(seconds),
        "runs": len(seconds),
        "copy": statistics.median(copies),
        "error": squared_error,
        "bytes": extra / largest.size,
    }


def _seconds_to_copy(array: NDArray[np.float32]) -> float:
    begin = time.perf_counter()
    array.copy()
    return time.perf_counter() - begin


def _squared_error(values: NDArray[np.float32], found: Clusters) -> float:
    """To the centroids in float32, as an archive holds them."""
    centroids, indices = found
    order = np.argsort(centroids)
    ranks: Any = np.argsort(order).astype(index_dtype(centroids.size))
    return Codebook(centroids[order].astype(np.float32), ranks[indices]).squared_error(values)


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    """Bytes, of this process."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split(f"{field}:")[1].split()[0])
