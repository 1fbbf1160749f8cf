"""A network of one's own from a Python file, by the real command line: compressed, retrained, exported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_run import QUICK, ROOT, results, run

from requant.archive import load, read
from requant.errors import ArchiveError
from requant.models import make

COPY = """
from torch import nn
from own_network import digits as original

def mine():
    return original()
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def exported(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "requant", "export", str(file), *options]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})


def test_it_is_compressed_retrained_and_exported(cache: Path, tmp_path: Path) -> None:
    code = tmp_path / "my_net.py"
    code.write_text(COPY)
    (tmp_path / "own_network.py").write_text((ROOT / "examples" / "own_network.py").read_text())
    name = f"own:{code}:mine"
    run(cache, tmp_path / "out", *QUICK, "model=own", f"model.name={name}", "retrain@baseline=none", "storage=entropy")
    (result,) = results(tmp_path / "out")
    assert result["accuracy"]["retrained"]["n"] == 200
    file = next((tmp_path / "out").rglob("retrained.h5"))
    assert "own-mine-mnist5k" in str(file.parent)
    assert read(file).architecture["name"] == "own:mine"
    with pytest.raises(ArchiveError, match="owner's code"):
        load(file)
    load(file, make(name))
    refused = exported(file, "--onnx", str(tmp_path / "a.onnx"))
    assert refused.returncode == 2
    assert "--model <file.py>:<function>" in refused.stderr
    done = exported(file, "--onnx", str(tmp_path / "a.onnx"), "--model", f"{code}:mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.onnx").stat().st_size < 0.3 * result["size"]["original_bytes"]
    # The same settings with other code are another run.
    code.write_text(COPY + "\n# changed\n")
    run(cache, tmp_path / "out", *QUICK, "model=own", f"model.name={name}", "retrain@baseline=none", "storage=entropy")
    assert len(results(tmp_path / "out")) == 2


@pytest.mark.slow
def test_the_example_is_what_model_own_compresses(cache: Path, tmp_path: Path) -> None:
    run(cache, tmp_path, *QUICK, "model=own", "retrain=none", "plan=auto", "target.reduction=0.9")
    (result,) = results(tmp_path)
    assert result["size"]["quantized_bytes"] <= 0.1 * result["size"]["original_bytes"]


SMALL = """
import torch
from torch import nn

def colours():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(32 * 8 * 8, 7))
    nn.init.normal_(model[-1].weight, std=0.2)
    return model
"""


def test_any_network_is_made_smaller_by_one_short_command(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(SMALL)
    network = ("model=own", f"model.name=own:{tmp_path / 'nets.py'}:colours", "model.classes=7", "model.channels=3")
    network += ("model.image_size=32", "model.mean=[0.5,0.5,0.5]", "model.std=[0.2,0.2,0.2]", "model.weights=none")
    few = ("unlabeled.crops=96", "data.limit=24", "plan.images=32", "retrain.images=64", "retrain.batch_size=16")
    done = run(cache, tmp_path / "out", "experiment=smaller", *network, *few)
    assert "all crops are of" in done.stderr  # of the few photographs that packages carry
    printed = done.stdout
    (result,) = results(tmp_path / "out")
    assert 0.99 * 0.1 <= result["size"]["retrained_bytes"] / result["size"]["original_bytes"] <= 0.1
    assert result["accuracy"]["retrained"]["kl"] < result["accuracy"]["quantized"]["kl"]
    assert "n = 24 images without labels, held out" in " ".join(printed.split())
