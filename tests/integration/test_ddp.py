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


def test_two_processes_train_a_network_with_parts_that_it_never_uses(tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.head, self.fc = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 10)\n"
        "    def forward(self, images):\n"
        "        return self.fc(self.conv(images).relu().mean((2, 3)))\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return Net()\n"
    )
    network = ("model=own", f"model.name=own:{code}:make", "model.weights=none", "data=none", "unlabeled.limit=80")
    settings = ("plan=weights", "plan.rules=[{layers: '1', kind: weight, centroids: 2}]", "retrain.epochs=2")
    run(tmp_path, tmp_path / "out", *network, *settings, "retrain.batch_size=8", "trainer=ddp_cpu")
    (result,) = (json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json"))
    assert result["accuracy"]["retrained"]["kl"] < result["accuracy"]["quantized"]["kl"]
