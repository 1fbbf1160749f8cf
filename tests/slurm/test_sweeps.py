"""Sweeps on a real Slurm: killed for a more urgent job and resumed, failing, on two processes a run."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_run import QUICK, results, run, without_times

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
SLURM = (
    "-m",
    "hydra/launcher=slurm",
    "hydra.launcher.time=10",
    "hydra.launcher.cpus_per_task=1",
    'hydra.launcher.options=["--partition=normal"]',
)
COMMON = (*QUICK, "retrain@baseline=none", "retrain.epochs=40")


@pytest.fixture(autouse=True)
def at_the_cluster(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(cache: Path, out: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "run.py"), *overrides, f"out={out}"]
    environment = os.environ | {"REQUANT_CACHE": str(cache), "COLUMNS": "100"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def logs(out: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in out.rglob("*.log")}


def lasting(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in without_times(found).items() if key != "git"}


def test_four_jobs_one_pushed_out_and_resumed_one_failing(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    rates = "retrain.learning_rate=0.01,0.02,0.03,1e30"
    sweep = start(cache, out, *SLURM, *COMMON, rates, "hydra.launcher.max_parallel=2")
    while not any("retrain without labels: epoch 3/" in said for said in logs(out).values()):
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.1)
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True)
    printed, _ = sweep.communicate()
    assert sweep.returncode == 2, printed
    assert "1 jobs of the sweep failed" in printed
    assert "the training diverged" in printed
    assert "All 3 runs of this sweep" in printed
    again = [path for path, said in logs(out).items() if "Slurm starts this job again" in said]
    resumed = [path for path in again if "retrain without labels: epoch 3/" in path.read_text()]
    assert resumed
    assert all(path.read_text().count("retrain without labels: epoch 3/") == 1 for path in resumed)
    (pushed_out,) = [found for found in results(out) if found["hash"] in resumed[0].name]
    rate = pushed_out["config"]["retrain"]["learning_rate"]
    run(cache, tmp_path / "alone", *COMMON, f"retrain.learning_rate={rate}")
    (alone,) = results(tmp_path / "alone")
    assert lasting(pushed_out) == lasting(alone)


def test_two_tasks_of_a_job_train_as_two_processes_that_lightning_starts(tmp_path: Path) -> None:
    cache, two = tmp_path / "cache", (*QUICK, "trainer=ddp_cpu")
    run(cache, tmp_path / "slurm", *SLURM, *two)
    run(cache, tmp_path / "alone", *two)
    (slurm,), (alone,) = results(tmp_path / "slurm"), results(tmp_path / "alone")
    assert lasting(slurm) == lasting(alone)


def test_processes_within_an_allocation_are_started_as_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "-m", *QUICK, "trainer=ddp_cpu", f"out={tmp_path / 'out'}"]
    wrapped = ["sbatch", "--wait", "--time=10", f"--output={tmp_path / 'job'}", f"--chdir={ROOT}"]
    environment = os.environ | {"REQUANT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([*wrapped, f"--wrap={' '.join(command)}"], env=environment)
    assert done.returncode == 0, (tmp_path / "job").read_text()
    assert len(results(tmp_path / "out")) == 1
