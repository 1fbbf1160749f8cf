"""Results of runs that never were, for what lists and draws them."""

import random
from pathlib import Path
from typing import Any

from requant.results import write_result

STUDENTS = ("teacher", "quantized", "retrained", "conventional")


def made_run(number: int) -> dict[str, Any]:
    """A result.json's content, another for each number: figures of plausible size, 16 clustered layers, 20 epochs."""
    draw = random.Random(number)
    centroids, n = draw.choice([2, 4, 8, 16, 32, 64, 128, 256]), 10_000
    model, data = draw.choice([("vgg16_cifar", "cifar10"), ("resnet50", "imagenet"), ("vgg_small", "mnist5k")])
    config = {
        "name": "made",
        "model": {"name": model, "classes": 10, "quantize": "14-15"},
        "data": {"name": data, "root": None},
        "clustering": {"method": draw.choice(["equal_population", "kmeans"])},
        "centroids": centroids,
        "storage": {"method": "packed"},
        "retrain": {"method": "proposed", "epochs": 20},
        "unlabeled": {"name": "photos"},
        "seed": number,
        "plan": {"rules": [{"layers": "14-15", "kind": "weight", "centroids": centroids}]},
    }
    original, final = 40_000_000, 2_000_000 + 150_000 * centroids.bit_length() + draw.randrange(100_000)
    size = {"original_bytes": original, "quantized_bytes": final - 1000, "retrained_bytes": final}
    size |= {"size_reduction": 1 - final / original, "parts": {"indices": final - 90_000, "dense": 90_000}}
    return {
        "config": config,
        "hash": f"{number:016x}",
        "git": "0" * 40,
        "seconds": {"cluster": 1.5},
        "size": size,
        "accuracy": {name: _accuracy(draw, n) for name in STUDENTS},
        "plan": [_tensor(layer, centroids) for layer in range(1, 17)],
        "retrain": {"curve": _curve(draw)},
        "baseline": {"curve": _curve(draw)},
    }


def write_runs(folder: Path, count: int) -> list[dict[str, Any]]:
    """So many of them below `folder`, run 7 as made/0007."""
    runs = [made_run(number) for number in range(count)]
    for number, run in enumerate(runs):
        write_result(folder / "made" / f"{number:04}", run)
    return runs


def _accuracy(draw: random.Random, n: int) -> dict[str, Any]:
    correct = draw.randrange(n)
    return {"correct": correct, "n": n, "top1": correct / n, "agreement": draw.random(), "kl": draw.random()}


def _tensor(layer: int, centroids: int) -> dict[str, Any]:
    name = f"features.{layer}.weight"
    tensor = {"layer": layer, "kind": "weight", "name": name, "values": 1000 * layer, "centroids": centroids}
    return tensor | {"method": "kmeans", "bytes": 600 * layer, "entropy_bits": 3.5}


def _curve(draw: random.Random) -> list[dict[str, float]]:
    return [{"epoch": epoch, "loss": 1 / epoch, "top1": draw.random()} for epoch in range(1, 21)]
