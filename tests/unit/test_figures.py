"""Figures are drawn from committed rows alone, without torch; every results.csv holds what it claims."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from requant.errors import UserError
from requant.figures.__main__ import main
from requant.figures.headline import CASES, cases
from requant.figures.photographs import by_photographs
from requant.figures.studies import STUDIES
from requant.figures.style import PAGE
from requant.figures.tables import curves, points, read_table
from requant.layer_table import network_table

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
THERE = [name for name, study in STUDIES.items() if (EXPERIMENTS / study.folder / "results.csv").exists()]
ORIGIN = {"seed", "hash", "git", "versions", "machine", "model", "data", "n", "correct", "teacher_correct"}
POINTS = ORIGIN | {"kind", "layers", "centroids", "bytes", "original_bytes", "clustering", "storage", "agreement", "kl"}
CURVES = ORIGIN | {"retrain", "centroids", "epoch", "seconds", "images_an_epoch", "unlabeled"}
PHOTOGRAPHS = ORIGIN | {"photographs", "way", "centroids", "bytes", "original_bytes", "unlabeled"}
LAYERS = {"form", "layer", "module", "block", "operation", "kernel", "weights", "biases", "batch_norm", "git"}


def table_of(name: str) -> pd.DataFrame:
    return read_table(EXPERIMENTS / STUDIES[name].folder / "results.csv")


@pytest.mark.parametrize("name", THERE)
def test_every_table_has_its_columns_and_says_where_it_comes_from(name: str) -> None:
    table, collect = table_of(name), STUDIES[name].collect
    expected = {points: POINTS, curves: CURVES, by_photographs: PHOTOGRAPHS}[collect] if STUDIES[name].runs else LAYERS
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
        differing = np.abs(np.asarray(drawn.convert("L"), float) - np.asarray(kept.convert("L"), float)) > 64
    assert differing.mean() < 1e-3, "draw it again: make figures"  # another font's edges, but no other line or number
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
    corrects = {"teacher": 90, "quantized": 10, "retrained": 80}
    counts = {name: {"correct": correct, "n": 100} for name, correct in corrects.items()}
    scores = {"agreement": 0.9, "kl": 0.1, "worst_class": {"top1": 0.5}}
    before = {"seconds_of_teacher": 1.0, "seconds_of_start": 2.0} if epochs else {"seconds_of_teacher": 0.0}
    found = {**before, "seconds": 3.0 + 10 * epochs, "images_seen": 600, "epochs": epochs, "curve": curve}
    return {
        "config": {
            **{"centroids": 32, "seed": 0, "retrain": {"method": method, "start": start}},
            **{group: {"name": group} for group in ("model", "data", "unlabeled")},
            **{"plan": {"method": "rules"}, "clustering": {"method": "kmeans"}},
        },
        "size": {"original_bytes": 1000, "quantized_bytes": 200, "retrained_bytes": 250},
        "accuracy": {name: found | scores for name, found in counts.items()},
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


@pytest.mark.parametrize(("method", "way"), [("proposed", "proposed, new crops"), ("reconstruct", "reconstruct")])
def test_retraining_on_new_crops_each_epoch_is_a_way_of_its_own(method: str, way: str, tmp_path: Path) -> None:
    made = result(method)
    made["config"]["unlabeled"]["fresh"] = True
    made["config"]["baseline"], made["baseline"] = {"method": "conventional"}, made["retrain"]
    made["accuracy"]["conventional"] = made["accuracy"]["retrained"]
    (tmp_path / "result.json").write_text(json.dumps(made))
    assert set(curves(tmp_path)["retrain"]) == {way, "conventional"}


def test_a_reconstruction_is_one_step(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result("reconstruct", epochs=0)))
    table = curves(tmp_path)
    assert list(table["correct"]) == [10, 80]
    assert list(table["seconds"]) == [0.0, 3.0]
    assert set(table["images_an_epoch"]) == {600}


@pytest.mark.parametrize("scale", [None, "imagenet"])
@pytest.mark.parametrize("name", ["fig15", "fig16", "photographs"])
def test_both_networks_and_all_ways_are_drawn(name: str, scale: str | None, tmp_path: Path) -> None:
    for study in STUDIES[name].names(scale):
        network = "resnet50_cifar_s2" if "resnet50" in study else "vgg16_cifar"
        for way, epochs in (("proposed", 2), ("reconstruct", 0)):
            folder = tmp_path / "runs" / study / way
            folder.mkdir(parents=True)
            made = result(way, epochs=epochs)
            made["config"]["model"]["name"] = network
            made["config"]["unlabeled"]["limit"] = 50
            (folder / "result.json").write_text(json.dumps(made))
    common = ["--experiments", str(tmp_path), *(["--scale", scale] if scale else [])]
    assert main([*common, "collect", name, "--runs", str(tmp_path / "runs")]) == 0
    assert main([*common, "draw", name]) == 0
    with Image.open(tmp_path / STUDIES[name].folder / f"{scale or 'figure'}.png") as drawn:
        assert drawn.width == round(200 * PAGE)


def test_at_the_papers_scale_the_case_studies_are_of_the_papers_length() -> None:
    assert STUDIES["fig15"].names("imagenet") == STUDIES["fig16"].names("imagenet")
    assert STUDIES["fig15"].names("imagenet") == ("vgg16_imagenet", "resnet50_imagenet")


def test_of_runs_that_are_shorter_than_the_longest_the_ends_are_drawn(tmp_path: Path) -> None:
    for seed, images in enumerate((600, 200, 200)):
        made = result("proposed")
        made["retrain"]["images_seen"], made["hash"], made["config"]["seed"] = images, f"{seed:016}", seed
        made["config"]["model"]["name"] = "vgg16_cifar"
        made["retrain"]["curve"][-1]["correct"] = 60 + seed
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "result.json").write_text(json.dumps(made))
    (axes,) = STUDIES["fig15"].draw(curves(tmp_path)).axes
    (ends,) = axes.containers
    point, _, (spread,) = ends.lines
    assert point.get_xydata().tolist() == [[0.2, 61.5]]
    assert spread.get_segments()[0].tolist() == [[0.2, 61.0], [0.2, 62.0]]
    assert axes.lines[0].get_xydata().tolist() == [[0.0, 10.0], [0.3, 51.0], [0.6, 60.0]]


def test_the_legend_says_how_many_seeds_panel_by_panel(tmp_path: Path) -> None:
    for network, seed in (("vgg16_cifar", 0), ("vgg16_cifar", 1), ("resnet50_cifar_s2", 0)):
        made = result("proposed")
        made["config"]["model"]["name"], made["config"]["seed"], made["hash"] = network, seed, f"{network}{seed}"
        (tmp_path / made["hash"]).mkdir()
        (tmp_path / made["hash"] / "result.json").write_text(json.dumps(made))
    legend = STUDIES["fig15"].draw(curves(tmp_path)).axes[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["proposed, 2 and 1 seeds"]


def test_runs_of_ways_that_are_not_drawn_are_not_counted(tmp_path: Path) -> None:
    for place, start in enumerate(("cluster", "reconstruct")):
        folder = tmp_path / "runs" / STUDIES["fig16"].runs[0] / str(place)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result("proposed", start)))
    rows = curves(tmp_path / "runs")
    (axes,) = STUDIES["fig16"].draw(rows).axes
    assert axes.get_ylabel() == "seconds (1 run each)"


def curve_of(corrects: list[int], seed: int = 0, k: int = 32) -> dict[str, Any]:
    """Of 10,000 images; 3 seconds before the first epoch, 10 each."""
    made = result("proposed")
    made["accuracy"] = {name: {**found, "n": 10_000} for name, found in made["accuracy"].items()}
    made["accuracy"]["teacher"]["correct"], made["accuracy"]["quantized"]["correct"] = 9000, corrects[0]
    rows = [{"correct": correct, "n": 10_000, "seconds": 10.0, "loss": 1.0} for correct in corrects[1:]]
    curve = [{"epoch": epoch, **row} for epoch, row in enumerate(rows, start=1)]
    made["retrain"] |= {"curve": curve, "epochs": len(curve), "images_seen": 100 * len(curve)}
    made["config"] |= {"seed": seed, "centroids": k, "model": {"name": "vgg16_cifar"}}
    return made | {"hash": f"{k:08}{seed:08}"}


def collected(folder: Path, *results: dict[str, Any]) -> pd.DataFrame:
    for made in results:
        (folder / made["hash"]).mkdir()
        (folder / made["hash"] / "result.json").write_text(json.dumps(made))
    return curves(folder)


def test_times_are_to_the_end_and_to_where_accuracy_stays_near_its_last(tmp_path: Path) -> None:
    runs = curve_of([1000, 8795, 8600, 8805, 8800]), curve_of([8800, 8800, 8800, 8800, 8801], seed=1)
    (axes,) = STUDIES["fig16"].draw(collected(tmp_path, *runs)).axes
    dots = [sorted(line.get_ydata()) for line in axes.lines]
    assert dots == [[43, 43], [3, 33]]  # within 0.1 points from the third epoch on; and all the time
    assert [bar.get_height() for bar in axes.patches] == [43, 18]


def test_the_end_that_is_enlarged_begins_where_all_lines_are_near_the_teacher(tmp_path: Path) -> None:
    for name, lines, first in (
        ("near", ([1000, 8800, 8600, 8900, 8900], [2000, 8900, 8900, 8900, 8900]), 3),
        ("far", ([1000, 8000, 8000, 8000, 8000],), 4),
    ):
        (tmp_path / name).mkdir()
        rows = collected(tmp_path / name, *(curve_of(line, k=2**place) for place, line in enumerate(lines)))
        assert STUDIES["fig09"].draw(rows).axes[1].get_xlim() == pytest.approx((first - 0.2, 4.2))


def test_the_proposed_retraining_is_drawn_whichever_crops_it_saw(tmp_path: Path) -> None:
    made = [curve_of([1000, *[8000 + 8 * epoch for epoch in range(100)]], k=k) for k in (8, 32)]
    made[1]["config"]["unlabeled"]["fresh"] = True
    whole, _ = STUDIES["fig09"].draw(collected(tmp_path, *made)).axes
    lines = [line for line in whole.lines if len(line.get_xdata()) == 101]
    assert len(lines) == 2
    assert all(len(range(0, 101, line.get_markevery())) < 30 for line in lines)  # marks that can be told apart


def test_curves_come_in_order_and_without_plans_that_have_no_k(tmp_path: Path) -> None:
    automatic = curve_of([1, 2])
    automatic["config"]["plan"], automatic["hash"] = {"method": "auto"}, "auto"
    made = [curve_of([1000, 8000], seed, k) for k, seed in ((8, 1), (32, 0), (8, 0))]
    table = collected(tmp_path, automatic, *made)
    assert table[["centroids", "seed", "epoch"]].to_numpy().tolist() == [
        [8, 0, 0], [8, 0, 1], [8, 1, 0], [8, 1, 1], [32, 0, 0], [32, 0, 1],
    ]  # fmt: skip


def test_points_come_in_the_order_of_layers_each_once(tmp_path: Path) -> None:
    rows = [("weight", layers, k, 10) for layers in ("13-49", "2", "1") for k in (16, 4)] + [("bias", "50", 1, 10)]
    for study, part in (("a", rows[:4]), ("b", rows[2:])):
        (tmp_path / study).mkdir()
        frame = pd.DataFrame(part, columns=["kind", "layers", "centroids", "n"])
        frame.to_csv(tmp_path / study / "points.csv", index=False)
    found = points(tmp_path)
    assert list(zip(found["layers"], found["centroids"], strict=True)) == [
        ("50", 1), ("1", 4), ("1", 16), ("2", 4), ("2", 16), ("13-49", 4), ("13-49", 16),
    ]  # fmt: skip


def test_the_headline_has_means_over_seeds_and_the_papers_values(tmp_path: Path) -> None:
    for seed, correct in enumerate((70, 80)):
        made = result("proposed")
        made["config"]["seed"], made["hash"] = seed, f"{seed:016}"
        made["config"]["model"]["name"] = "vgg16_cifar"
        made["accuracy"]["retrained"]["correct"] = correct
        (tmp_path / "runs" / CASES[0] / str(seed)).mkdir(parents=True)
        (tmp_path / "runs" / CASES[0] / str(seed) / "result.json").write_text(json.dumps(made))
    assert main(["--experiments", str(tmp_path), "tables", "--collect", "--runs", str(tmp_path / "runs")]) == 0
    lines = (tmp_path / "tables" / "headline.md").read_text().splitlines()
    assert "**vgg16_cifar, data, kmeans, k = 32** (n = 100)" in lines[2]
    assert [line.split("|")[1].strip() for line in lines[3:]] == ["teacher", "quantized", "proposed"]
    cells = [cell.strip() for cell in lines[5].split("|")[2:-1]]
    assert cells == ["75.00", "70 to 80", "15.00", "90.0", "50.0", "250", "75.0", "23", "2", "74.78", "0.34", "81.10"]
    assert "processor" in (tmp_path / "tables" / "machine.md").read_text()


def test_rows_without_a_number_of_photographs_are_not_taken(tmp_path: Path) -> None:
    made = result("proposed")
    made["config"]["unlabeled"]["limit"] = None
    (tmp_path / "result.json").write_text(json.dumps(made))
    with pytest.raises(UserError, match=r"unlabeled\.limit"):
        by_photographs(tmp_path)
    with pytest.raises(UserError, match="run the study first"):
        cases(tmp_path / "nothing")


def test_the_same_table_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    folder = STUDIES["fig07"].folder
    (tmp_path / folder).mkdir()
    shutil.copy(EXPERIMENTS / folder / "results.csv", tmp_path / folder)
    drawn = []
    for seed in ("1", "2"):  # of strings' hashes, by which sets are ordered
        command = [sys.executable, "-m", "requant.figures", "--experiments", str(tmp_path), "draw", "fig07"]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
        drawn.append((tmp_path / folder / "figure.png").read_bytes())
    assert drawn[0] == drawn[1]
