"""A search as it is typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("model.weights=none", "data.limit=100", "retrain=none", "retrain@baseline=none")


@pytest.mark.slow
def test_a_search_tries_so_many_runs_and_goes_on_with_more(tmp_path: Path) -> None:
    def search(*overrides: str) -> str:
        command = [sys.executable, str(ROOT / "run.py"), "-m", "hydra/sweeper=optuna", *QUICK, f"out={tmp_path}"]
        environment = os.environ | {"REQUANT_CACHE": str(tmp_path / "cache"), "COLUMNS": "100"}
        done = subprocess.run([*command, *overrides], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    space = ("centroids=2,16,256", "plan.rules=choice([{kind: weight, centroids: 4}],[{layers: 2, centroids: 4}])")
    assert "No other run is smaller and more accurate" in search(*space, "hydra.sweeper.trials=1")
    assert len(list(tmp_path.rglob("result.json"))) == 1
    printed = search(*space, "hydra.sweeper.trials=3", "hydra.launcher.max_parallel=2")
    assert len(list(tmp_path.rglob("result.json"))) in (2, 3)  # two trials may be of the same settings
    assert "search.journal" in printed
