"""Figures are drawn from committed rows alone, without torch; every results.csv holds what it claims."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from PIL import Image

from requant.errors import UserError
from requant.figures.__main__ import main
from requant.figures.studies import STUDIES
from requant.figures.style import PAGE
from requant.figures.tables import curves, points, read_table
from requant.layer_table import network_table

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
THERE = [name for name, study in STUDIES.items() if (EXPERIMENTS / study.folder / "results.csv").exists()]
ORIGIN = {"seed", "hash", "git", "versions", "machine", "model", "data", "n", "correct", "teacher_correct"}
POINTS = ORIGIN | {"kind", "layers", "centroids", "bytes", "original_bytes", "clustering", "storage", "agreement", "kl"}
CURVES = ORIGIN | {"retrain", "centroids", "epoch", "seconds", "images_an_epoch", "unlabeled"}
LAYERS = {"form", "layer", "module", "block", "operation", "kernel", "weights", "biases", "batch_norm", "git"}


def table_of(name: str) -> pd.DataFrame:
    return read_table(EXPERIMENTS / STUDIES[name].folder / "results.csv")


@pytest.mark.parametrize("name", THERE)
def test_every_table_has_its_columns_and_says_where_it_comes_from(name: str) -> None:
    table, collect = table_of(name), STUDIES[name].collect
    expected = LAYERS if not STUDIES[name].runs else POINTS if collect is points else CURVES
    assert expected <= set(table.columns)
    assert table["git"].str.fullmatch("[0-9a-f]{40}").all(), "measured with code that was not committed"
    if expected is not LAYERS:
        assert table["hash"].str.fullmatch("[0-9a-f]{16}").all()
        assert (table["clustering" if expected is POINTS else "data"].nunique(), table["seed"].notna().all()) == (
            1,
            True,
        )
        assert table["correct"].between(0, table["n"]).all()
        assert (EXPERIMENTS / STUDIES[name].folder / "results.csv").stat().st_size < 300_000


@pytest.mark.parametrize("name", [name for name in THERE if STUDIES[name].collect is points and STUDIES[name].runs])
def test_every_point_is_there_once(name: str) -> None:
    table = table_of(name)
    assert not table.duplicated(["kind", "layers", "centroids", "n"]).any()
    assert table["centroids"].isin([2**i for i in range(9)]).all()
    assert (table["bytes"] < table["original_bytes"]).all()
    assert table.groupby("n")["teacher_correct"].nunique().eq(1).all()


@pytest.mark.parametrize("name", THERE)
def test_every_committed_table_is_drawn_as_it_is_committed(name: str, tmp_path: Path) -> None:
    study = STUDIES[name]
    folder = tmp_path / study.folder
    folder.mkdir()
    (folder / "results.csv").write_text((EXPERIMENTS / study.folder / "results.csv").read_text())
    assert main(["--experiments", str(tmp_path), "draw", name]) == 0
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(folder / "figure.png") as drawn, Image.open(EXPERIMENTS / study.folder / "figure.png") as kept:
        assert drawn.size == kept.size, "draw it again: make figures"
        assert drawn.width <= 200 * PAGE
    assert mpl.rcParams["font.size"] == mpl.rcParamsDefault["font.size"]


def test_the_layers_are_those_of_the_committed_tables() -> None:
    for name in ("fig05", "fig10"):
        found = network_table("vgg16" if name == "fig05" else "resnet50").drop(columns=["git", "versions"])
        committed = table_of(name).drop(columns=["git", "versions"])
        pd.testing.assert_frame_equal(found, committed, check_dtype=False)
        assert set(found["layer"]) == set(range(1, 17 if name == "fig05" else 51))


def test_drawing_needs_no_torch() -> None:
    code = "import sys; import requant.figures.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_table_says_how_to_make_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--experiments", str(tmp_path), "draw", "fig07"]) == 2
    assert "make fig07-runs" in capsys.readouterr().err
    with pytest.raises(UserError, match="run the study first"):
        points(tmp_path)
    with pytest.raises(UserError, match="run the study first"):
        curves(tmp_path)


def result(method: str, start: str = "cluster", epochs: int = 2) -> dict[str, Any]:
    """What a result.json says of a retraining, as far as the curves go."""
    curve = [{"epoch": i, "correct": 50 + i, "n": 100, "seconds": 10.0, "loss": 1.0} for i in range(1, epochs + 1)]
    counts = {name: {"correct": correct, "n": 100} for name, correct in (("teacher", 90), ("quantized", 10))}
    before = {"seconds_of_teacher": 1.0, "seconds_of_start": 2.0} if epochs else {"seconds_of_teacher": 0.0}
    found = {**before, "seconds": 3.0 + 10 * epochs, "images_seen": 600, "epochs": epochs, "curve": curve}
    return {
        "config": {
            **{"centroids": 32, "seed": 0, "retrain": {"method": method, "start": start}},
            **{group: {"name": group} for group in ("model", "data", "unlabeled")},
        },
        "accuracy": {**counts, "retrained": {"correct": 80, "n": 100}},
        "retrain": found,
        **{"hash": "0" * 16, "git": "0" * 40, "machine": {"cpu": "cpu", "threads": 1}},
        "versions": dict.fromkeys(("requant", "python", "torch", "numpy", "h5py"), "1"),
    }


def test_curves_begin_before_the_first_epoch_and_count_all_seconds(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result("proposed", start="reconstruct")))
    table = curves(tmp_path)
    assert list(table["epoch"]) == [0, 1, 2]
    assert list(table["correct"]) == [10, 51, 52]
    assert table["seconds"].sum() == 23.0
    assert set(table["retrain"]) == {"reconstruct, proposed"}
    assert set(table["images_an_epoch"]) == {300}


def test_a_reconstruction_is_one_step(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result("reconstruct", epochs=0)))
    table = curves(tmp_path)
    assert list(table["correct"]) == [10, 80]
    assert list(table["seconds"]) == [0.0, 3.0]
    assert set(table["images_an_epoch"]) == {600}


@pytest.mark.parametrize("name", ["fig15", "fig16"])
def test_both_networks_and_all_ways_are_drawn(name: str, tmp_path: Path) -> None:
    for network, study in zip(("vgg16_cifar", "resnet50_cifar_s2"), STUDIES[name].runs, strict=True):
        for way, epochs in (("proposed", 2), ("reconstruct", 0)):
            folder = tmp_path / "runs" / study / way
            folder.mkdir(parents=True)
            made = result(way, epochs=epochs)
            made["config"]["model"]["name"] = network
            (folder / "result.json").write_text(json.dumps(made))
    assert main(["--experiments", str(tmp_path), "collect", name, "--runs", str(tmp_path / "runs")]) == 0
    assert main(["--experiments", str(tmp_path), "draw", name]) == 0
    with Image.open(tmp_path / STUDIES[name].folder / "figure.png") as drawn:
        assert drawn.width == round(200 * PAGE)
