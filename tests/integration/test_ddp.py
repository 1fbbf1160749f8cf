"""Two gloo processes on one CPU, started by the real command line."""

import json
from pathlib import Path

import torch
from test_run import QUICK, run

from requant.archive import load


def test_two_processes_train_as_one_on_the_same_global_batches(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    common = (*QUICK, "data.limit=101", "retrain@baseline=none", "retrain.epochs=1", "unlabeled.limit=192")
    run(cache, tmp_path / "one", *common, "retrain.batch_size=64")
    run(cache, tmp_path / "two", *common, "retrain.batch_size=32", "trainer=ddp_cpu")
    (one,), (two,) = (list((tmp_path / name).rglob("result.json")) for name in ("one", "two"))
    curves = [json.loads(path.read_text())["retrain"]["curve"][0] for path in (one, two)]
    assert curves[0]["n"] == curves[1]["n"] == 101
    assert curves[0]["correct"] == curves[1]["correct"]
    weights = [load(path.parent / "retrained.h5").state_dict() for path in (one, two)]
    assert all(torch.allclose(value, weights[1][name], atol=1e-5) for name, value in weights[0].items())
