"""A network of Hugging Face by the real command line: from the folder of its files to a small file, and on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
import transformers
from test_run import run

from requant.archive import load, read

QUICK = ("model=huggingface", "model.weights=published", "data=none", "unlabeled.limit=300", "retrain@baseline=none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8, 16, 16], depths=[1, 1, 1], layer_type="basic", num_labels=7
    )
    model = transformers.ResNetForImageClassification(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    model.save_pretrained(tmp_path / "net")
    processor = {"image_mean": [0.1307], "image_std": [0.3081], "size": {"height": 28, "width": 28}}
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "net"


def test_it_is_made_small_and_exported(tmp_path: Path, folder: Path) -> None:
    aim = ("plan=auto", "target.size_mb=0.0075", "storage=entropy", "retrain=reconstruct")
    network = (f"model.name=huggingface:{folder}", "model.classes=7")
    run(tmp_path / "cache", tmp_path / "out", *QUICK, *network, *aim)
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json"))
    assert result["size"]["retrained_bytes"] <= 7500
    assert result["accuracy"]["retrained"]["kl"] < result["accuracy"]["quantized"]["kl"]
    (path,) = (tmp_path / "out").rglob("retrained.h5")
    assert "net" in path.parts[-3]
    shutil.rmtree(folder)
    assert read(path).architecture["name"] == "huggingface:net"
    images = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        wanted = load(path)(images).logits.numpy()
    export = [sys.executable, "-m", "requant", "export", str(path), "--onnx", "n.onnx"]
    done = subprocess.run(export, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = onnxruntime.InferenceSession(tmp_path / "n.onnx").run(None, {"images": images.numpy()})
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_its_layers_are_studied(tmp_path: Path, folder: Path) -> None:
    network = (f"model.name=huggingface:{folder}", "model.classes=7")
    study = ("task=sensitivity", "sensitivity.layers=['2','5']", "sensitivity.centroids=[2,256]")
    printed = run(tmp_path / "cache", tmp_path / "out", *QUICK, *network, *study).stdout
    assert "cannot be cut" not in printed
    (path,) = (tmp_path / "out").rglob("points.csv")
    points = pd.read_csv(path).set_index(["layers", "centroids"])
    assert (points["kl"].xs(256, level=1) < points["kl"].xs(2, level=1)).all()


@pytest.mark.slow
def test_it_is_retrained(tmp_path: Path, folder: Path) -> None:
    network = (f"model.name=huggingface:{folder}", "model.classes=7")
    run(tmp_path / "cache", tmp_path / "out", *QUICK, *network, "retrain.epochs=2", "retrain.batch_size=32")
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json"))
    assert result["accuracy"]["retrained"]["kl"] < result["accuracy"]["quantized"]["kl"]


@pytest.mark.slow
def test_wrong_settings_are_said_with_what_to_set(tmp_path: Path, folder: Path) -> None:
    done = run(tmp_path / "cache", tmp_path / "out", *QUICK, f"model.name=huggingface:{folder}", check=False)
    assert "set model.classes=7" in done.stderr
    assert "Traceback" not in done.stderr
