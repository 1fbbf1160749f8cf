"""Two gloo processes on one CPU, started by the real command line."""

import json
import time
from pathlib import Path

import pytest
import torch
from test_killed_sweep import finish, kill, left_behind, start
from test_run import QUICK, run

from requant.archive import load


def test_two_processes_train_as_one_on_the_same_global_batches(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    common = (*QUICK, "data.limit=101", "retrain@baseline=none", "retrain.epochs=1", "unlabeled.limit=192")
    run(cache, tmp_path / "one", *common, "retrain.batch_size=64")
    printed = run(cache, tmp_path / "two", *common, "retrain.batch_size=32", "trainer=ddp_cpu").stdout
    assert printed.count("on the unlabeled images: kept") == 1  # by one process for the other
    (one,), (two,) = (list((tmp_path / name).rglob("result.json")) for name in ("one", "two"))
    curves = [json.loads(path.read_text())["retrain"]["curve"][0] for path in (one, two)]
    assert curves[0]["n"] == curves[1]["n"] == 101
    assert curves[0]["correct"] == curves[1]["correct"]
    weights = [load(path.parent / "retrained.h5").state_dict() for path in (one, two)]
    assert all(torch.allclose(value, weights[1][name], atol=1e-5) for name, value in weights[0].items())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_of_two_processes_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Both trainings of each run (without labels, with labels) in two processes, killed amid the first run's second."""
    sweep = ("-m", *QUICK, "trainer=ddp_cpu", "seed=0,1", "retrain.epochs=3")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(whole, sweep)
    killed = start(cut, sweep)
    while not any("with labels: epoch 1/3" in log.read_text() for log in cut.rglob("*.log")):
        assert killed.poll() is None
        time.sleep(0.1)
    kill(killed)
    finish(cut, sweep)
    expected, found = left_behind(whole), left_behind(cut)
    assert len([name for name in expected if name.endswith("/result.json")]) == 2
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    for path in whole.rglob("result.json"):
        curves = [json.loads(path.read_text())[key]["curve"] for key in ("retrain", "baseline")]
        assert [[entry["n"] for entry in curve] for curve in curves] == [[200] * 3, [200] * 3]
