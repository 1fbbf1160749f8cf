"""Networks of other classes than the named sets': measured on one's own labelled images, or without a label."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from test_run import run

from requant.models import Architecture, build, save_weights

QUICK = ("unlabeled.limit=300", "retrain.epochs=1", "retrain.batch_size=32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    torch.manual_seed(0)
    network = build(Architecture("vgg_small", classes=4, channels=1, image_size=28))
    torch.nn.init.normal_(list(network.parameters())[-2], std=0.5)  # outputs that differ from image to image
    save_weights(path, network, {})
    return path


def only_result(out: Path) -> dict[str, Any]:
    (path,) = out.rglob("result.json")
    return dict(json.loads(path.read_text()))


def test_without_a_label_agreement_on_images_held_out_is_measured(tmp_path: Path, weights: Path) -> None:
    network = (f"model.weights={weights}", "model.classes=4", "data=none")
    printed = run(tmp_path / "cache", tmp_path / "out", *QUICK, *network).stdout
    for there in ("epoch 1/1", "agreement ", "vgg_small on digits (unlabeled)", "n = 60 images without labels"):
        assert there in printed
    assert "top-1" not in printed
    assert "conventional" not in printed
    result = only_result(tmp_path / "out")
    assert result["images"]["test"]["n"] == 60
    assert result["images"]["retrained"]["n"] == 240  # the others
    assert result["accuracy"]["teacher"]["correct"] == 60
    for found in result["accuracy"].values():
        assert found["top1"] == found["agreement"]
    assert result["retrain"]["curve"][-1]["correct"] == result["accuracy"]["retrained"]["correct"]


def test_a_sensitivity_study_without_a_label(tmp_path: Path, weights: Path) -> None:
    network = (f"model.weights={weights}", "model.classes=4", "data=none", "unlabeled.limit=100")
    study = ("task=sensitivity", "sensitivity.layers=['2']", "sensitivity.centroids=[2,256]")
    printed = run(tmp_path / "cache", tmp_path / "out", *network, *study).stdout
    (path,) = (tmp_path / "out").rglob("points.csv")
    assert "with the weights of these layers clustered alone at k" in printed
    assert str(path.with_name("summary.png")) in printed
    points = pd.read_csv(path)
    assert points["n"].tolist() == [20, 20]
    assert points["teacher_correct"].tolist() == [20, 20]
    assert points["correct"].is_monotonic_increasing


@pytest.mark.parametrize("wrong", ["retrain=conventional", "model.weights=trained"])
def test_what_needs_labels_is_refused_where_there_are_none(tmp_path: Path, wrong: str) -> None:
    done = run(tmp_path / "cache", tmp_path / "out", "data=none", "model.weights=none", wrong, check=False)
    assert done.returncode == 2
    assert f"{wrong} needs labelled images, and data=none has none" in done.stderr
    assert not list((tmp_path / "out").rglob("*.h5"))


def test_a_tree_of_ones_own_classes(tmp_path: Path, weights: Path) -> None:
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = tmp_path / ("test" if number % 2 else "train") / f"class {label}"
        if number < 80 and label < 4:
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype("uint8")).save(folder / f"{number}.png")
    given = (f"model.weights={weights}", "data=folder", f"data.root={tmp_path / 'test'}", "data.workers=0")
    done = run(tmp_path / "cache", tmp_path / "out", *QUICK, *given, check=False)
    assert done.returncode == 2
    assert "model.classes=10, but data=folder has 4" in done.stderr
    statistics = ("model.mean=[0.3]", "model.std=[0.2]")
    trained = (f"data.train_root={tmp_path / 'train'}", "model.classes=4", *statistics)
    printed = run(tmp_path / "cache", tmp_path / "out", *QUICK, *given, *trained).stdout
    assert "vgg_small on folder" in printed
    result = only_result(tmp_path / "out")
    assert result["images"]["test"]["n"] == len(list((tmp_path / "test").rglob("*.png")))
    assert result["images"]["conventional"]["n"] == len(list((tmp_path / "train").rglob("*.png")))
    assert result["config"]["model"]["mean"] == [0.3]
