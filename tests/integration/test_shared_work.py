"""What the runs of a sweep share is computed once, and changes no bit."""

import shutil
from pathlib import Path

import pytest
from test_run import QUICK, results, run, without_times

COMMON = (*QUICK, "retrain@baseline=none")


@pytest.mark.slow
def test_a_sweep_computes_once_what_its_runs_share(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    run(cache, out, "-m", *COMMON, "centroids=4,8", "seed=0,1", "hydra.launcher.max_parallel=2")
    said = "".join(path.read_text() for path in out.rglob("*.log"))
    events = ("Training the teacher", "on the test images: kept", "on the unlabeled images: kept", "Clusters of")
    assert [said.count(event) for event in events] == [1, 3, 3, 2]
    assert len(list((cache / "shared" / "outputs").glob("*.safetensors"))) == 2
    shutil.rmtree(cache / "shared")
    run(cache, tmp_path / "alone", *COMMON, "centroids=8", "seed=1", "trainer.threads=1")
    (alone,) = results(tmp_path / "alone")
    (swept,) = [found for found in results(out) if (found["config"]["centroids"], found["config"]["seed"]) == (8, 1)]
    for found in (alone, swept):
        del found["config"]["trainer"]["threads"]
    assert without_times(alone) == without_times(swept)
