"""The README's example runs as it is written, and its demo's sizes are what it says."""

import hashlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from torch import nn

from requant.archive import save
from requant.compression import compress
from requant.models import Architecture, build, example_input
from requant.settings import parse, register, settings_of_file

ROOT = Path(__file__).parents[2]


def test_the_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ bytes on disk", done.stdout)
    assert "Accuracy(n=256" in done.stdout
    assert "Warning" not in done.stderr
    assert "val_dataloader" not in done.stderr


def test_the_demos_sizes_are_those_of_its_files(tmp_path: Path) -> None:
    """They do not depend on the weights; the hashes in the file compress some bytes better or worse."""
    readme = (ROOT / "README.md").read_text()
    teacher, quantized = (
        int(re.findall(rf"^\| {name} \| ([\d,]+) \|", readme, re.M)[0].replace(",", ""))
        for name in ("teacher", "quantized")
    )
    architecture = Architecture("vgg_small", classes=10, channels=1, image_size=28)
    rules = [{"layers": "2-8", "kind": "weight", "centroids": 4}]
    network = build(architecture)
    for parameter in network.parameters():
        nn.init.normal_(parameter)  # zeros would be held in fewer bytes
    found = compress(network, rules, example_input(architecture), "equal_population")
    assert 4 * sum(tensor.values for tensor in found.tensors) == teacher
    digits = hashlib.sha256(b"any").hexdigest()
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        demo = parse(compose("config"))
    provenance = {
        "hash": digits[:16],
        "teacher": digits,
        "methods": "equal_population",
        "settings": settings_of_file(demo),
        "versions": {name: version(name) for name in ("requant", "torch")},
    }
    report = save(
        tmp_path / "a.h5", found.model, found.codebooks, architecture=architecture.to_dict(), provenance=provenance
    )
    assert abs(report.bytes - quantized) <= 16


@pytest.mark.slow
def test_the_denoising_example_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "denoising.py"), "--steps", "5", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (size,) = re.findall(r"^([\d,]+) bytes, [\d.]+ dB; ", done.stdout, re.M)
    assert (tmp_path / "denoising.h5").stat().st_size == int(size.replace(",", "")) <= 19_201
    assert (tmp_path / "denoising.png").read_bytes().startswith(b"\x89PNG")
