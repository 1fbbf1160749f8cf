"""Networks that give no scores of one class, by the real command line: masks, depths, embeddings, classes of pixels."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_run import run

from requant.archive import load, read
from requant.models import make

CODE = """
import torch
from torch import nn

class ByName(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return {"out": self.inner(images)}

def of_pixels(outputs, stride=1):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3, stride, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(32, outputs, 1))
    nn.init.normal_(model[-1].weight, std=1.0)
    return ByName(model).eval()

def depth():
    return of_pixels(1)

def mask():
    return of_pixels(1, stride=2)

def classes():
    return of_pixels(5, stride=4)

def embedding():
    model = nn.Sequential(of_pixels(8).inner, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return model.eval()
"""
QUICK = ("unlabeled.limit=300", "retrain.epochs=2", "retrain.batch_size=32", "data=none", "model=own")
QUICK += ("model.weights=none", "plan=weights", "plan.rules=[{kind: weight, centroids: 4}]")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(CODE)
    return path


def network(code: Path, function: str, outputs: str, numbers: int) -> tuple[str, ...]:
    return f"model.name=own:{code}:{function}", f"model.outputs={outputs}", f"model.classes={numbers}"


def only_result(out: Path) -> dict[str, Any]:
    (path,) = out.rglob("result.json")
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize(("function", "numbers", "n"), [("depth", 1, 60 * 28 * 28), ("embedding", 32, 60)])
def test_values_are_matched_and_measured_by_the_variance_explained(
    tmp_path: Path, code: Path, function: str, numbers: int, n: int
) -> None:
    printed = run(tmp_path / "cache", tmp_path / "out", *QUICK, *network(code, function, "values", numbers)).stdout
    said = "n = 60 images without labels" if n == 60 else f"n = {n:,} outputs of 60 images without labels"
    for there in ("epoch 2/2", "variance explained ", "explained", said):
        assert there in " ".join(printed.split())
    for absent in ("top-1", "agree", "KL"):
        assert absent not in printed
    result = only_result(tmp_path / "out")
    measured = result["accuracy"]
    assert measured["teacher"]["top1"] == 1
    assert measured["quantized"]["top1"] < measured["retrained"]["top1"] < 1
    assert measured["retrained"]["n"] == n
    assert {found["correct"] for found in measured.values()} == {None}
    curve = result["retrain"]["curve"]
    assert curve[-1]["top1"] == pytest.approx(measured["retrained"]["top1"], abs=1e-6)
    (file,) = (tmp_path / "out").rglob("retrained.h5")
    assert read(file).architecture["outputs"] == "values"
    student = load(file, make(f"own:{code}:{function}"))
    assert len(student.state_dict()) == 6


@pytest.mark.parametrize(("function", "outputs", "numbers"), [("mask", "sigmoid", 1), ("classes", "softmax", 5)])
def test_decisions_at_each_position_are_counted(
    tmp_path: Path, code: Path, function: str, outputs: str, numbers: int
) -> None:
    aim = ("plan=auto", "plan.rules=[]", "target.size_mb=0.0045", "storage=entropy", "retrain=reconstruct")
    printed = run(tmp_path / "cache", tmp_path / "out", *QUICK, *aim, *network(code, function, outputs, numbers)).stdout
    side = 14 if function == "mask" else 7
    assert f"n = {60 * side * side:,} outputs of 60 images without labels" in " ".join(printed.split())
    assert ("same yes or no" if outputs == "sigmoid" else "same class") in " ".join(printed.split())
    result = only_result(tmp_path / "out")
    for found in result["accuracy"].values():
        assert found["top1"] == found["agreement"] == found["correct"] / found["n"]
        assert found["n"] == 60 * side * side
    assert result["accuracy"]["teacher"]["correct"] == 60 * side * side
    assert result["accuracy"]["retrained"]["kl"] < result["accuracy"]["quantized"]["kl"]
    assert result["size"]["retrained_bytes"] <= 4500


def test_two_processes_measure_together(tmp_path: Path, code: Path) -> None:
    settings = ("trainer=ddp_cpu", "unlabeled.limit=25", "retrain.batch_size=2", "retrain.epochs=1")
    run(tmp_path / "cache", tmp_path / "out", *QUICK, *network(code, "depth", "values", 1), *settings)
    result = only_result(tmp_path / "out")
    assert result["accuracy"]["retrained"]["n"] == 5 * 28 * 28
    assert result["retrain"]["curve"][0]["top1"] == pytest.approx(result["accuracy"]["retrained"]["top1"], abs=1e-6)


def test_a_study_of_layers_whose_outputs_are_values(tmp_path: Path, code: Path) -> None:
    study = ("task=sensitivity", "sensitivity.layers=['2']", "sensitivity.centroids=[2,256]", "unlabeled.limit=100")
    found = run(tmp_path / "cache", tmp_path / "out", *QUICK, *network(code, "depth", "values", 1), *study)
    assert "change in points of agreement with the teacher" in found.stdout
    (path,) = (tmp_path / "out").rglob("points.csv")
    points = pd.read_csv(path)
    assert points["n"].tolist() == [20 * 28 * 28] * 2
    assert points["agreement"].is_monotonic_increasing
    assert points["agreement"][1] > 0.99


def test_torchvision_s_networks_for_segmentation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = ("model=torchvision", "model.name=torchvision:lraspp_mobilenet_v3_large", "model.classes=5")
    settings += ("model.image_size=48", "model.weights=none", "data=none", "unlabeled=photos", "unlabeled.crops=20")
    settings += ("data.limit=4", "centroids=64", "retrain.epochs=1", "retrain.batch_size=8")
    run(tmp_path / "cache", tmp_path / "out", *settings)
    result = only_result(tmp_path / "out")
    assert result["accuracy"]["retrained"]["n"] == 4 * 48 * 48
    (file,) = (tmp_path / "out").rglob("retrained.h5")
    with torch.no_grad():
        assert load(file)(torch.zeros(1, 3, 48, 48))["out"].shape == (1, 5, 48, 48)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("data=mnist5k",), "data=mnist5k has labels of classes"),
        (("retrain.loss=mse",), "retrain.loss=mse is for model.outputs=softmax, not values"),
        (("retrain.temperature=2",), "retrain.temperature=2.0 is for model.outputs=softmax"),
        (("model.outputs=value",), "model.outputs"),
        (
            ("trainer=ddp_cpu", "data.limit=1", "unlabeled.limit=5"),
            "1 images to measure on are fewer than the 2 processes",
        ),
        (("model.outputs=softmax", "model.classes=1"), "model.classes must be an integer from 2"),
        (("model.classes=3",), "puts out (1, 1, 28, 28) for one image, not (1, 3) or (1, 3, height, width)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, code: Path, wrong: tuple[str, ...], message: str) -> None:
    given = (*QUICK, *network(code, "depth", "values", 1), *wrong)
    done = run(tmp_path / "cache", tmp_path / "out", *given, check=False)
    assert done.returncode == 2, done.stdout
    assert message in " ".join(done.stderr.split())
    assert not list((tmp_path / "out").rglob("*.h5"))
