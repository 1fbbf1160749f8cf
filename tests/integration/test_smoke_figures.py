"""From runs on embedded data to figures: the smoke chain of figures 7, 8, 9, 15 and 16."""

from pathlib import Path

import pandas as pd
import pytest
from test_run import QUICK, run

from requant.figures.__main__ import main
from requant.figures.studies import STUDIES


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of layers, and a run with both retrainings, under the names that the figures collect."""
    cache, out = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("runs")
    study = (*QUICK, "name=fig07_08_vgg16", "task=sensitivity", "sensitivity.layers=[each,2-8]")
    run(cache, out, *study, "sensitivity.centroids=[2,32]")
    run(cache, out, *QUICK, "name=vgg16_cifar10")
    (out / "vgg16_cifar10").rename(out / "fig09_vgg16")
    (out / "vgg16_cifar10").symlink_to(out / "fig09_vgg16")
    return out


def test_runs_become_tables_and_figures(runs: Path, tmp_path: Path) -> None:
    """All in one test: workers would each do the runs anew."""
    for name in ("fig07", "fig08", "fig09", "fig15", "fig16"):
        draw(name, runs, tmp_path)


def draw(name: str, runs: Path, tmp_path: Path) -> None:
    assert main(["--experiments", str(tmp_path), "collect", name, "--runs", str(runs)]) == 0
    assert main(["--experiments", str(tmp_path), "draw", name]) == 0
    folder = tmp_path / STUDIES[name].folder
    assert (folder / "figure.png").stat().st_size > 5000
    table = pd.read_csv(folder / "results.csv", dtype={"layers": str})
    assert set(table["n"]) == {200}
    if name in ("fig07", "fig08"):
        assert sorted(table["layers"].unique()) == [*"12", "2-8", *"3456789"]
        assert len(table) == 20
    else:
        assert set(table["retrain"]) == {"proposed", "conventional"}
        assert sorted(table["epoch"].unique()) == [0, 1, 2]
