"""The studies at the paper's scale, run whole on a small stand-in for ImageNet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_run import run

from requant.data.imagenet import wnids


def write_tree(folder: Path, images: int) -> None:
    """Two classes of random images."""
    generator = np.random.default_rng(images)
    for place in (0, 7):
        (folder / wnids()[place]).mkdir(parents=True)
        for number in range(images):
            pixels = generator.integers(0, 256, (40, 50, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / wnids()[place] / f"{number}.JPEG")


def write_cifar10(path: Path) -> None:
    """What passes for CIFAR-10: its numbers of images, classes and mean; almost grey."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for split, images in (("train", 50_000), ("test", 10_000)):
        mean = 255 * torch.tensor([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
        pixels = (mean + torch.rand((images, 3, 32, 32), generator=generator)).to(torch.uint8)
        tensors |= {f"{split}_images": pixels, f"{split}_labels": torch.arange(images) % 10}
    save_file(tensors, path)


@pytest.mark.slow
@pytest.mark.parametrize("study", ["resnet50_imagenet", "vgg16_imagenet"])
def test_a_study_at_the_papers_scale_runs_from_end_to_end_in_two_processes(study: str, tmp_path: Path) -> None:
    write_tree(tmp_path / "val", images=4)
    write_tree(tmp_path / "train", images=4)
    write_cifar10(tmp_path / "cifar10.safetensors")
    run(
        tmp_path / "cache",
        tmp_path / "out",
        f"experiment={study}",
        f"data.root={tmp_path / 'val'}",
        f"data.train_root={tmp_path / 'train'}",
        f"unlabeled.root={tmp_path / 'cifar10.safetensors'}",
        "unlabeled.limit=10",
        "model.weights=none",
        "model.image_size=32",
        "data.workers=0",
        "trainer=ddp_cpu",
        "retrain.epochs=1",
        "baseline.epochs=1",
        "retrain.batch_size=4",
    )
    (tmp_path / "cifar10.safetensors").unlink()  # 184 MB
    (path,) = (tmp_path / "out").rglob("result.json")
    result = json.loads(path.read_text())
    assert set(result["accuracy"]) == {"teacher", "quantized", "retrained", "conventional"}
    assert {entry["centroids"] for entry in result["plan"]} == {1, 32 if study.startswith("vgg") else 256}
    layers = {entry["layer"] for entry in result["plan"] if entry["kind"] == "weight"}
    assert layers == ({14, 15} if study.startswith("vgg") else set(range(13, 50)))
