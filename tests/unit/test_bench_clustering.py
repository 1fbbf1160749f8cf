import sys

import numpy as np
import pytest

from benchmarks import bench_clustering
from benchmarks.clusterers import why_not
from benchmarks.measuring import measure


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_what_is_measured_is_of_all_arrays() -> None:
    arrays = [np.random.default_rng(seed).normal(size=200_000).astype(np.float32) for seed in range(2)]
    found = measure("linear", arrays, 16, 1.0)
    assert found["runs"] >= 1
    assert min(found["seconds"], found["copy"]) > 0
    assert found["error"] == pytest.approx(sum(a.var() * a.size * 0.02 for a in arrays), rel=0.8)
    assert found["bytes"] >= 0  # what the process has freed before is used again: hence one process a measurement


def test_a_library_that_would_take_too_much_memory_is_left_out_by_name() -> None:
    reason = why_not("kmeans1d", 1 << 24, 256)
    assert reason in ("needs 64 GiB", "not installed")
    assert why_not("kmeans", 1 << 24, 256) is None


def test_ratios_are_to_kmeans_the_optimum_and_a_copy() -> None:
    found = {"seconds": 2.0, "copy": 0.5, "error": 3.0, "bytes": 1.25, "runs": 7.0}
    optimum = found | {"error": 2.0}
    rows: list[bench_clustering.Row] = [("kmeans", 16, found | {"seconds": 1.0}), ("exact", 16, optimum)]
    cells = bench_clustering._cells(("other", 16, found), rows)
    assert cells == ["other", "16", "2.000", "4.0", "2.00", "1.5000", "1.2", "7"]
    assert bench_clustering._cells(("slow", 16, "not done after 9 s"), rows)[2] == "not done after 9 s"
    assert "| other | 16 | 2.000 |" in bench_clustering.markdown("title", [cells])
