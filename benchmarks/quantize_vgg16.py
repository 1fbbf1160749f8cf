"""VGG-16, ImageNet form, the paper's rules at k = 32: seconds and memory to quantize and store it, size by part.

`make bench`, or: python -m benchmarks.quantize_vgg16 [storage ...]. Random weights: neither time nor size of `packed`
depends on what the values are; for `gzip` they are the worst case. Each storage runs in a process of its own, so that
the peak memory is its own.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.arguments import command_line

RULES = [{"layers": "14-15", "kind": "weight", "centroids": 32}, {"kind": "bias", "centroids": 1}]


def measure(storage: str) -> None:
    """Print one line: seconds by stage, peak memory, bytes by part."""
    import torch

    from requant.archive import load, save
    from requant.compression import compress
    from requant.models import Architecture, build, example_input

    torch.manual_seed(0)
    architecture = Architecture("vgg16")
    model = build(architecture)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vgg16.h5"
        started = time.perf_counter()
        compressed = compress(model, RULES, example_input(architecture), "equal_population")
        clustered = time.perf_counter()
        report = save(
            path, compressed.model, compressed.codebooks, storage=storage, architecture=architecture.to_dict()
        )
        stored = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        load(path)
        loaded = time.perf_counter()
    original = 4 * sum(p.numel() for p in model.parameters())
    parts = ", ".join(f"{name} {count:,}" for name, count in report.parts.items())
    seconds = f"cluster {clustered - started:.1f} s, store {stored - clustered:.1f} s, load {loaded - stored:.1f} s"
    less = f"{100 * (1 - report.bytes / original):.2f} % less"
    print(f"{storage}: {seconds}, peak {peak:.2f} GiB; {report.bytes:,} of {original:,} bytes, {less}: {parts}")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        measure(sys.argv[2])
    else:
        parser = command_line(__doc__)
        parser.add_argument("storage", nargs="*", default=["packed", "gzip"])
        for name in parser.parse_args().storage:
            subprocess.run([sys.executable, "-m", "benchmarks.quantize_vgg16", "--one", name], check=True)
