"""onnxruntime on a network's weights as codebooks against the same network in float32: load time, memory, latency.

Each file is loaded in a process of its own, several times in turn; medians. python -m benchmarks.export
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.table import Table

from benchmarks.arguments import command_line, print_table
from requant import archive
from requant.compression import compress
from requant.exporting import export_onnx
from requant.models import Architecture, build, example_input, load_weights

ROUNDS = 5
ARCHITECTURE = Architecture("efficientnet_lite0")
MEASURE = """
import json, pathlib, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
def memory():  # the peak so far, KiB
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = memory()
start = time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
loaded = time.perf_counter() - start
image = {"images": numpy.zeros((1, 3, 224, 224), numpy.float32)}
times = []
for _ in range(20):
    start = time.perf_counter()
    session.run(None, image)
    times.append(time.perf_counter() - start)
peak = memory() - before
print(json.dumps([1000 * loaded, peak / 1024, 1000 * sorted(times)[10]]))
"""


def main() -> None:
    """Export, measure, show."""
    command_line(__doc__).parse_args()
    model = build(ARCHITECTURE)
    load_weights(model, "imagenet", ARCHITECTURE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"float32": _export(folder, model, None)}
        files |= {f"k = {k}": _export(folder, model, k) for k in (256, 32, 16)}
        rounds = [{form: _measured(path) for form, path in files.items()} for _ in range(ROUNDS)]
        columns = ("form", "bytes", "load, ms", "peak memory, MiB", "latency, ms")
        table = Table(*columns, title="EfficientNet-Lite0, one thread")
        for form, path in files.items():
            medians = [statistics.median(r[form][i] for r in rounds) for i in range(3)]
            table.add_row(form, f"{path.stat().st_size:,}", *(f"{value:.1f}" for value in medians))
    print_table(table)


def _export(folder: Path, model: torch.nn.Module, centroids: int | None) -> Path:
    rules = [] if centroids is None else [{"kind": "weight", "centroids": centroids}]
    found = compress(model, rules, example_input(ARCHITECTURE))
    path = folder / f"{centroids}.h5"
    archive.save(path, found.model, found.codebooks, architecture=ARCHITECTURE.to_dict())
    return export_onnx(path, path.with_suffix(".onnx")).path


def _measured(path: Path) -> list[float]:
    command = [sys.executable, "-c", MEASURE, str(path)]
    found: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


if __name__ == "__main__":
    main()
