"""The real command line, on the embedded data, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from requant.archive import load, read
from requant.compression import check_placed

ROOT = Path(__file__).parents[2]
QUICK = ("teacher.epochs=2", "data.train_limit=600", "data.limit=200", "unlabeled.limit=200", "retrain.epochs=2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of this file, so that the teacher is trained once."""
    return tmp_path_factory.mktemp("cache")


def run(cache: Path, out: Path, *overrides: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"REQUANT_CACHE": str(cache), "COLUMNS": "100", "WANDB_SILENT": "true"}
    command = [sys.executable, str(ROOT / "run.py"), *overrides, f"out={out}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.rglob("result.json"))]


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """The result less seconds and paths; the rest must repeat bit for bit."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if not k.startswith("seconds") and k not in ("out", "force")}
        return [strip(v) for v in value] if isinstance(value, list) else value

    return dict(strip(result))


@pytest.fixture(scope="module")
def first(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run: its folder and what it printed."""
    out = tmp_path_factory.mktemp("first")
    printed = run(cache, out, *QUICK).stdout
    (path,) = out.rglob("result.json")
    return path.parent, printed


def test_a_run_ends_in_a_table_a_picture_and_paths(first: tuple[Path, str]) -> None:
    folder, printed = first
    for word in ("teacher", "quantized", "retrained", "conventional", "agreement", "summary.png", "retrained.h5"):
        assert word in printed
    assert (folder / "summary.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in folder.iterdir()} >= {"quantized.h5", "retrained.h5", "conventional.h5", "settings.json"}
    assert not list(folder.rglob("last.ckpt"))


def test_the_result_says_what_the_contract_promises(first: tuple[Path, str]) -> None:
    folder, _ = first
    result = json.loads((folder / "result.json").read_text())
    assert set(result) >= {
        "config",
        "hash",
        "git",
        "versions",
        "machine",
        "seconds",
        "size",
        "accuracy",
        "retrain",
        "plan",
    }
    assert folder.name.endswith(result["hash"])
    size = result["size"]
    assert size["quantized_bytes"] == (folder / "quantized.h5").stat().st_size
    assert size["retrained_bytes"] == (folder / "retrained.h5").stat().st_size == sum(size["parts"].values())
    assert size["conventional_bytes"] == (folder / "conventional.h5").stat().st_size
    assert size["size_reduction"] == 1 - size["retrained_bytes"] / size["original_bytes"]
    told = read(folder / "retrained.h5").provenance or {}
    assert told["hash"] == result["hash"]
    assert told["settings"]["retrain.epochs"] == 2
    assert torch.__version__.startswith(told["versions"]["torch"])
    for name in ("teacher", "quantized", "retrained", "conventional"):
        accuracy = result["accuracy"][name]
        assert accuracy["n"] == 200
        assert accuracy["top1"] == accuracy["correct"] / 200
    assert result["retrain"]["images_seen"] == 400
    assert [entry["epoch"] for entry in result["retrain"]["curve"]] == [1, 2]
    assert [entry["layer"] for entry in result["plan"]] == list(range(2, 9))


def test_the_last_epoch_counts_what_the_stored_network_does(first: tuple[Path, str]) -> None:
    """The curve is measured on the network in memory, the result on the one loaded back: they must agree."""
    result = json.loads((first[0] / "result.json").read_text())
    assert result["retrain"]["curve"][-1]["correct"] == result["accuracy"]["retrained"]["correct"]


def test_the_retrained_network_is_still_on_its_centroids(first: tuple[Path, str]) -> None:
    folder, _ = first
    quantized, retrained = read(folder / "quantized.h5"), read(folder / "retrained.h5")
    model = load(folder / "retrained.h5")
    check_placed(model, quantized.codebooks)
    assert set(retrained.codebooks) == set(quantized.codebooks)
    moved = [
        n for n, v in model.state_dict().items() if not torch.equal(v, load(folder / "quantized.h5").state_dict()[n])
    ]
    assert "features.0.weight" in moved


def test_a_done_run_is_only_shown(cache: Path, first: tuple[Path, str]) -> None:
    folder, _ = first
    before = (folder / "result.json").stat().st_mtime_ns
    printed = run(cache, folder.parents[2], *QUICK).stdout
    assert "done already" in printed
    assert (folder / "result.json").stat().st_mtime_ns == before


def test_the_same_settings_give_the_same_bits(cache: Path, first: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = first
    run(cache, tmp_path, *QUICK)
    (again,) = tmp_path.rglob("result.json")
    assert without_times(json.loads(again.read_text())) == without_times(
        json.loads((folder / "result.json").read_text())
    )
    for name in ("quantized.h5", "retrained.h5", "conventional.h5"):
        assert (again.parent / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_killed_run_goes_on_to_the_same_result(cache: Path, first: tuple[Path, str], tmp_path: Path) -> None:
    environment = os.environ | {"REQUANT_CACHE": str(cache)}
    command = [sys.executable, str(ROOT / "run.py"), f"out={tmp_path}", *QUICK]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(tmp_path.rglob("last.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not results(tmp_path)
    printed = run(cache, tmp_path, *QUICK).stdout
    assert "retrain without labels: epoch 1/2" not in printed
    assert len((next(tmp_path.rglob("result.json")).parent / "retrained" / "metrics.csv").read_text().splitlines()) == 3
    expected = json.loads((first[0] / "result.json").read_text())
    assert without_times(results(tmp_path)[0]) == without_times(expected)


def test_a_sweep_makes_a_result_a_job_and_one_table(cache: Path, tmp_path: Path) -> None:
    common = ("-m", *QUICK, "retrain=none")
    run(cache, tmp_path, *common, "centroids=2")
    listed = run(cache, tmp_path, *common, "centroids=2,4,8", "dry_run=true").stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["done", "centroids=2"],
        ["new", "centroids=4"],
        ["new", "centroids=8"],
    ]
    printed = run(cache, tmp_path, *common, "centroids=2,4,8", "hydra.launcher.max_parallel=2").stdout
    assert "1 of 3 runs are done already" in printed
    assert "All 3 runs of this sweep" in printed
    found = results(tmp_path)
    assert sorted(r["config"]["centroids"] for r in found) == [2, 4, 8]
    sizes = {r["config"]["centroids"]: r["size"]["quantized_bytes"] for r in found}
    assert sizes[2] < sizes[4] < sizes[8]


@pytest.mark.slow
def test_a_sweep_over_runs_of_two_processes(cache: Path, tmp_path: Path) -> None:
    overrides = ("trainer=ddp_cpu", "centroids=4,8", "retrain.epochs=1", "retrain@baseline=none")
    run(cache, tmp_path, "-m", *QUICK, *overrides)
    assert [r["retrain"]["images_seen"] for r in results(tmp_path)] == [200, 200]


def test_wandb_offline_is_finished_even_twice_in_one_process(cache: Path, tmp_path: Path) -> None:
    overrides = ("centroids=4,8", "logger=wandb", "retrain.epochs=1", "retrain@baseline=none")
    run(cache, tmp_path, "-m", *QUICK, *overrides, "hydra/launcher=basic")
    assert len(list(tmp_path.rglob("*.wandb"))) == 2


@pytest.mark.slow
def test_only_the_last_layer(cache: Path, tmp_path: Path) -> None:
    run(cache, tmp_path, *QUICK, "retrain=last_layer", "retrain.epochs=1", "retrain@baseline=none", "storage=gzip")
    (folder,) = (path.parent for path in tmp_path.rglob("result.json"))
    before, after = load(folder / "quantized.h5").state_dict(), load(folder / "retrained.h5").state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"classifier"}
    assert len(moved) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["centroid=8"], "did you mean 'centroids'"),
        (["model=vgg17"], "did you mean 'vgg16'"),
        (["centroids=5000"], "1 to 4096"),
        (["retrain.epochs=many"], "retrain.epochs"),
        (["model.weights=nowhere.pt"], "nowhere.pt"),
        pytest.param(["data=imagenet"], "model.classes=10", marks=pytest.mark.slow),
        (["-m", "trainer=ddp_cpu", "hydra/launcher=basic"], "hydra/launcher=process"),
        (["unlabeled=folder"], "unlabeled.root"),
        pytest.param(["unlabeled=folder", "unlabeled.root=/nowhere"], "/nowhere", marks=pytest.mark.slow),
        (["plan.rules=[{layers: '40', kind: weight, centroids: 4}]"], "layers 40"),
        pytest.param(["plan.rules=[{kind: wieght, centroids: 4}]"], "weight", marks=pytest.mark.slow),
        pytest.param(["plan.rules=[{name: 'conv9', centroids: 4}]"], "conv9", marks=pytest.mark.slow),
        (["plan.rules=[{kind: weight, centroids: 4},{kind: bias, centroids: 1}]", *QUICK], "nothing is left to train"),
    ],
)
def test_a_users_mistake_is_one_message(cache: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    done = run(cache, tmp_path, *overrides, *QUICK, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not results(tmp_path)


def test_ctrl_c_ends_with_what_to_do_next(cache: Path, first: tuple[Path, str], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), *QUICK, "retrain.epochs=200", f"out={tmp_path}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"REQUANT_CACHE": str(cache)}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.rglob("last.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on" in printed


def test_a_failed_job_does_not_cost_the_sweeps_table(cache: Path, tmp_path: Path) -> None:
    overrides = ("centroids=5000,4", "plan.rules=[{layers: 2, kind: weight, centroids: ${centroids}}]", "retrain=none")
    broken = "model.weights=none,broken.pt"
    done = run(cache, tmp_path, "-m", *QUICK, *overrides, broken, check=False)
    assert done.returncode == 2
    assert "3 jobs of the sweep failed" in done.stderr
    assert "1 to 4096" in done.stderr
    assert "broken.pt" in done.stderr
    assert "Traceback" not in done.stderr
    assert "equal_population-k4" in done.stdout


def test_help_explains_groups_and_settings(cache: Path, tmp_path: Path) -> None:
    printed = run(cache, tmp_path, "--help").stdout
    for word in (
        "python run.py -m centroids=",
        "unlabeled.root",
        "efficientnet_lite0",
        "equal_population",
        "force=true",
    ):
        assert word in printed


def test_an_automatic_plan_meets_its_size_without_labels(cache: Path, tmp_path: Path) -> None:
    command = ["plan=auto", "target.size_mb=0.03", "retrain=reconstruct", "retrain@baseline=none", *QUICK]
    printed = run(cache, tmp_path, *command, "unlabeled.limit=500", "retrain.images=64", "retrain.dreams=32").stdout
    (result,) = results(tmp_path)
    (path,) = tmp_path.rglob("retrained.h5")
    assert result["retrain"]["images_seen"] == 96
    assert abs(path.stat().st_size - 30_000) <= 300
    assert abs(result["size"]["quantized_bytes"] - 30_000) <= 300
    assert "auto, 0.03 MB" in printed
    assert "auto-0.03mb-entropy-reconstruct" in str(path)
    accuracy = result["accuracy"]
    assert accuracy["retrained"]["kl"] < accuracy["quantized"]["kl"]
    stored = read(path)
    check_placed(load(path), stored.codebooks)
    assert {entry["name"]: entry["centroids"] for entry in result["plan"]} == {
        name: book.k for name, book in stored.codebooks.items()
    }


def test_a_drop_is_measured_on_images_that_nothing_else_saw(cache: Path, tmp_path: Path) -> None:
    command = ["plan=auto", "target.max_drop=0.1", "plan.held_out=50", "retrain=reconstruct", "retrain@baseline=none"]
    sizes = ["plan.images=16", "retrain.images=32", "retrain.damping=0.1", "unlabeled.limit=100"]
    printed = run(cache, tmp_path, *command, *QUICK, *sizes).stdout
    (result,) = results(tmp_path)
    drops = [float(drop) for drop in re.findall(r"([\d.]+)% get another class", printed)]
    assert "of 20 held-out images" in printed  # a fifth of 100
    assert min(drops) <= 10.0
    assert result["images"]["retrained"]["n"] == 80


@pytest.mark.slow  # tests/unit/test_reconstruction.py covers it without a process
def test_a_plan_of_rules_can_be_reconstructed(cache: Path, tmp_path: Path) -> None:
    command = [
        "plan=weights",
        "clustering=kmeans",
        "centroids=4",
        "retrain=reconstruct",
        "retrain@baseline=none",
        *QUICK,
    ]
    printed = run(cache, tmp_path, *command, "retrain.damping=0.1", "unlabeled.limit=500").stdout
    assert "damping" not in printed  # given, none is searched
    (result,) = results(tmp_path)
    assert result["accuracy"]["retrained"]["kl"] < 0.5 * result["accuracy"]["quantized"]["kl"]
    assert result["retrain"]["images_seen"] == 500  # all that there are, of 512


def test_codebooks_are_trained_from_what_reconstruction_leaves(cache: Path, tmp_path: Path) -> None:
    command = ["plan=weights", "clustering=kmeans", "centroids=2", "storage=entropy", "retrain@baseline=none", *QUICK]
    train = ("retrain=codebook", "retrain.start=reconstruct", "retrain.latent_rate=0.01", "retrain.batch_size=25")
    run(cache, tmp_path, *command, *train, "unlabeled.limit=500")
    (result,) = results(tmp_path)
    first, last = (entry["loss"] for entry in result["retrain"]["curve"])
    assert last < first
    quantized, retrained = (read(next(tmp_path.rglob(f"{name}.h5"))) for name in ("quantized", "retrained"))
    check_placed(load(next(tmp_path.rglob("retrained.h5"))), retrained.codebooks)
    for name, book in retrained.codebooks.items():
        before = quantized.codebooks[name]
        assert (book.k, book.shape) == (before.k, before.shape)
        assert (book.indices != before.indices).any()


@pytest.mark.slow
def test_training_that_moves_a_reconstructed_network_away_is_undone(cache: Path, tmp_path: Path) -> None:
    command = ["plan=weights", "clustering=kmeans", "centroids=16", "retrain@baseline=none", *QUICK]
    few = ("retrain.images=200", "retrain.batch_size=25", "retrain.damping=0.1")
    run(cache, tmp_path / "a", *command, *few, "retrain=reconstruct")
    wild = ("retrain=codebook", "retrain.start=reconstruct", "retrain.learning_rate=0.5", "retrain.epochs=1")
    done = run(cache, tmp_path / "b", *command, *few, *wild)
    assert "training moved the network away" in done.stderr
    assert "was undone: this is what it began with" in " ".join(done.stdout.split())
    (alone,), (undone,) = results(tmp_path / "a"), results(tmp_path / "b")
    assert undone["retrain"]["undone"] is True
    assert "undone" not in alone["retrain"]
    assert undone["accuracy"]["retrained"] == alone["accuracy"]["retrained"]
    files = [read(next((tmp_path / name).rglob("retrained.h5"))) for name in "ab"]
    for name, book in files[0].codebooks.items():
        assert (files[1].codebooks[name].indices == book.indices).all()


def test_codebooks_are_trained_within_the_size_that_was_asked_for(cache: Path, tmp_path: Path) -> None:
    """Coarse grids' indices are mostly 0: training would move them elsewhere, and the file grow by half."""
    plan = ("plan=auto", "target.reduction=0.97", "plan.trellis=false", "plan.images=64", "retrain@baseline=none")
    train = ("retrain=codebook", "retrain.start=reconstruct", "retrain.latent_rate=0.1", "retrain.batch_size=25")
    run(cache, tmp_path, *plan, *train, *QUICK, "retrain.images=128", "retrain.damping=0.1", "unlabeled.limit=500")
    (result,) = results(tmp_path)
    assert result["size"]["retrained_bytes"] <= 0.03 * result["size"]["original_bytes"]
    assert result["accuracy"]["retrained"]["kl"] < result["accuracy"]["quantized"]["kl"]
