"""A small network with every case an archive has to hold, for the archive's tests."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from requant.archive import ArchiveReport, save, shortened
from requant.clustering import cluster, cluster_split
from requant.codebook import Codebook

CENTROIDS = {"0.weight": 16, "0.bias": 1, "1.running_var": 2, "3.weight": 5}


class Extra(nn.Module):
    """Buffers of other types, of no dimension and of no values."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("of_16_bits", torch.tensor([1.5, -2.0], dtype=torch.float16))
        self.register_buffer("of_64_bits", torch.tensor([[0.1]], dtype=torch.float64))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("nothing", torch.zeros(0, 3))
        self.register_buffer("of_8_bits", torch.arange(5, dtype=torch.uint8))


def network(seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 7), Extra())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
        model[1].running_var.uniform_(0.5, 2, generator=generator)
        model[1].num_batches_tracked.fill_(12_345_678_901)
    return model


def quantize(model: nn.Module, centroids: dict[str, int]) -> dict[str, Codebook]:
    state = model.state_dict()
    codebooks = {name: cluster(state[name], k, name=name) for name, k in centroids.items()}
    for name, codebook in codebooks.items():
        state[name].copy_(torch.from_numpy(codebook.dense()))
    return codebooks


def saved(path: Path, storage: str = "packed", seed: int = 0) -> tuple[nn.Module, dict[str, Codebook], ArchiveReport]:
    model = network(seed)
    codebooks = quantize(model, CENTROIDS)
    return (
        model,
        codebooks,
        save(path, model, codebooks, storage=storage, provenance={"seed": seed, "über": [1.5, None]}),
    )


def many_centroids() -> tuple[nn.Module, dict[str, Codebook]]:
    """What only format 2 holds: 300 centroids, channels of different scale."""
    chance = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(16, 24, 3, bias=False), nn.Linear(40, 60))
    with torch.no_grad():
        for layer in model:
            scales = np.exp(chance.normal(size=(len(layer.weight), 1)))
            values = scales * chance.normal(size=(len(layer.weight), layer.weight[0].numel()))
            layer.weight.copy_(torch.from_numpy(values.reshape(layer.weight.shape)))
        model[1].bias.copy_(torch.from_numpy(chance.normal(size=60)))
    return model, quantize(model, {"0.weight": 12, "1.weight": 300})


def saved_2(path: Path, storage: str = "packed", seed: int = 0) -> tuple[nn.Module, dict[str, Codebook], ArchiveReport]:
    """An archive of format 2: the same network, its centroids and other float32 tensors in 16 bits."""
    model = network(seed)
    short, books = shortened(model, quantize(model, CENTROIDS), centroids="float16", dense="bfloat16")
    return short, books, save(path, short, books, storage=storage, provenance={"seed": seed, "über": [1.5, None]})


FORMS = {
    "channel": {"granularity": "channel"},
    "channel_scale": {"granularity": "channel_scale"},
    "group": {"granularity": "group:50"},
    "product": {"method": "product"},
    "split": {"split": 0.3},
    "short": {},
    "many": {},
}


def network_of_forms() -> nn.Module:
    """A layer for each form of codebook, a centroid table of which values in 16 bits would lose bits."""
    generator = torch.Generator().manual_seed(0)
    model = nn.ModuleDict({name: nn.Conv2d(8, 12, 3, bias=name == "many") for name in FORMS})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    model["short"].half()
    return model


def saved_forms(path: Path, storage: str) -> nn.Module:
    """Of format 2."""
    model, books = network_of_forms(), {}
    for name, settings in FORMS.items():
        method, split = settings.get("method", "kmeans"), settings.get("split", 0.0)
        more = {key: value for key, value in settings.items() if key == "granularity"}
        weight = model[name].weight
        books[f"{name}.weight"] = cluster_split(weight, 300 if name == "many" else 6, method, split, name=name, **more)
        weight.data.copy_(torch.from_numpy(books[f"{name}.weight"].dense()))
    save(path, model, books, storage=storage)
    return model
