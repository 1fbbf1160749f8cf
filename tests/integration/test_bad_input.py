"""What users bring that is broken: one message each, exit code 2, no traceback, and nothing that was there is lost."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_run import QUICK, ROOT, results, run

from requant.models import Architecture, build

SMALL = Architecture("vgg_small", classes=10, channels=1, image_size=28)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file of weights, so that no teacher need be trained."""
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    torch.manual_seed(0)
    save_file(build(SMALL).state_dict(), path)
    return path


def refused(tmp_path: Path, *overrides: str) -> str:
    """The message of a run that must fail for the user's reason."""
    done = run(tmp_path / "cache", tmp_path / "out", *QUICK, *overrides, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not results(tmp_path / "out")
    return " ".join(done.stderr.split())


@pytest.mark.slow
def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    state = build(SMALL).state_dict()
    state["classifier.0.weight"][3, 5] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    message = refused(tmp_path, f"model.weights={tmp_path / 'nan.safetensors'}")
    assert "classifier.0.weight" in message


@pytest.mark.slow  # the messages are tested in tests/unit/test_models_weights.py; here, that they reach the user
def test_weights_of_another_network(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "conv1.weight" in refused(tmp_path, f"model.weights={tmp_path / 'other.safetensors'}")


@pytest.mark.slow
def test_weights_that_would_have_to_be_unpickled(tmp_path: Path) -> None:
    torch.save(build(SMALL), tmp_path / "whole_model.pt")
    assert "whole_model.pt" in refused(tmp_path, f"model.weights={tmp_path / 'whole_model.pt'}")


@pytest.mark.slow
def test_an_empty_folder_of_images(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused(tmp_path, f"model.weights={weights}", "unlabeled=folder", f"unlabeled.root={tmp_path / 'empty'}")
    assert "empty" in message


@pytest.mark.slow
def test_unreadable_images_are_skipped_aloud_and_none_left_is_an_error(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    chosen = (f"model.weights={weights}", "unlabeled=folder", f"unlabeled.root={folder}")
    assert "broken.jpg" in refused(tmp_path, *chosen)
    Image.new("RGB", (64, 48), "teal").save(folder / "whole.png")
    done = run(tmp_path / "cache", tmp_path / "out", *QUICK, *chosen, "retrain.epochs=1", "retrain@baseline=none")
    assert "broken.jpg" in done.stderr
    assert len(results(tmp_path / "out")) == 1


def test_a_damaged_archive_is_named_and_left_alone(tmp_path: Path, weights: Path) -> None:
    chosen = (*QUICK, f"model.weights={weights}", "retrain=none")
    run(tmp_path / "cache", tmp_path / "out", *chosen)
    (result,) = (tmp_path / "out").rglob("result.json")
    result.unlink()
    archive = result.parent / "quantized.h5"
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    archive.write_bytes(damaged)
    message = refused(tmp_path, *chosen)
    assert "quantized.h5" in message
    assert archive.read_bytes() == damaged


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path: Path, weights: Path) -> None:
    """The limit on a file's size stands in for the disk's: writing past it fails in the same call."""
    limit = 20_000
    command = [sys.executable, str(ROOT / "run.py"), *QUICK, f"model.weights={weights}", "retrain=none"]
    done = subprocess.run(
        [*command, f"out={tmp_path / 'out'}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "REQUANT_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "quantized.h5" in done.stderr
    assert not list((tmp_path / "out").rglob("*.h5"))
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_damaged_checkpoint_says_what_to_remove(tmp_path: Path, weights: Path) -> None:
    chosen = (*QUICK, f"model.weights={weights}", "retrain@baseline=none", "retrain.epochs=1")
    run(tmp_path / "cache", tmp_path / "out", *chosen)
    (result,) = (tmp_path / "out").rglob("result.json")
    result.unlink()
    (result.parent / "retrained" / "last.ckpt").write_bytes(b"half a checkpoint")
    assert "last.ckpt" in refused(tmp_path, *chosen)


@pytest.mark.slow
def test_a_folder_of_other_settings_is_refused(tmp_path: Path, weights: Path) -> None:
    chosen = (*QUICK, f"model.weights={weights}", "retrain=none")
    run(tmp_path / "cache", tmp_path / "out", *chosen)
    (result,) = (tmp_path / "out").rglob("result.json")
    result.unlink()
    mark = result.parent / "settings.json"
    mark.write_text(mark.read_text().replace('"hash": "', '"hash": "0'))
    assert "belongs to settings 0" in refused(tmp_path, *chosen)
