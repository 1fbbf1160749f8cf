import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from requant.archive import save
from requant.compression import compress
from requant.errors import UserError
from requant.figures.run import draw_run
from requant.report import result_table
from requant.results import collect, final, findings, read_result, row, summary, table, write_result


def result(**changes: Any) -> dict[str, Any]:
    accuracy = {"n": 50, "correct": 40, "top1": 0.8, "top5": 0.9, "agreement": 0.85, "kl": 0.1}
    accuracy["worst_class"] = {"class": 3, "correct": 1, "n": 4, "top1": 0.25}
    curve = [{"epoch": 1, "loss": 0.5, "correct": 39, "n": 50, "top1": 0.78, "seconds": 1.0}]
    training = {"epochs": 1, "seconds": 1.0, "seconds_per_epoch": 1.0, "images_seen": 64, "curve": curve}
    names = {"clustering": {"method": "kmeans"}, "storage": {"method": "packed"}, "retrain": {"method": "proposed"}}
    config = {"name": "e", "model": {"name": "m"}, "data": {"name": "d"}, "centroids": 8, "seed": 0, **names}
    config |= {"unlabeled": {"name": "digits"}, "baseline": {"method": "conventional"}}
    size = {"original_bytes": 4000, "quantized_bytes": 900, "retrained_bytes": 1000, "size_reduction": 0.75}
    size["parts"] = {"indices": 600, "codebooks": 100, "dense": 200, "overhead": 100}
    students = ("teacher", "quantized", "retrained", "conventional")
    whole = {"config": config, "hash": "abc", "seconds": {"cluster": 1.0, "retrained": 2.0}, "size": size}
    return whole | {"accuracy": dict.fromkeys(students, accuracy), "retrain": training, "baseline": training} | changes


def test_a_result_survives_the_disk_and_many_make_a_table(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_result(tmp_path / name, result(hash=name))
    assert read_result(tmp_path / "a" / "result.json") == result(hash="a")
    runs = collect(tmp_path)
    assert list(runs["hash"]) == ["a", "b"]
    assert list(runs["bytes"]) == [1000, 1000]
    assert list(runs["retrained_correct"]) == [40, 40]
    assert not list(tmp_path.rglob("*.tmp"))


def cells(made: dict[str, Any], column: int) -> list[str]:
    return [str(cell) for cell in result_table(made).columns[column].cells]


def test_the_baselines_bytes_are_those_of_its_own_file() -> None:
    made = result()
    assert cells(made, 1) == ["4,000", "900", "1,000", "1,000"]  # results of before do not say
    made["size"]["conventional_bytes"] = 1100
    assert cells(made, 1) == ["4,000", "900", "1,000", "1,100"]


def test_without_labels_agreement_is_shown_and_no_top_1() -> None:
    made = result()
    assert [column.header for column in result_table(made).columns][3:5] == ["top-1", "correct"]
    made["config"]["data"]["name"] = "none"
    table = result_table(made)
    assert [column.header for column in table.columns][3:] == ["same class", "agrees", "KL"]
    assert cells(made, 4) == ["85.00"] * 4
    assert "top-1" not in f"{table.title} {table.caption}"
    assert str(table.title).startswith("m on digits (unlabeled)")


def test_numbers_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    write_result(tmp_path, result())
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, result(hash=float("nan")))
    assert read_result(tmp_path / "result.json") == result()


def test_a_damaged_result_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"config":')
    with pytest.raises(UserError, match="remove it and run again"):
        read_result(tmp_path / "result.json")


def test_a_foreign_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"config": {}}')
    with pytest.raises(UserError, match=r"result\.json is no result of requant"):
        collect(tmp_path)


def test_the_summary_is_flat_and_counts_bits_on_disk() -> None:
    flat = summary(result())
    assert flat["bits_per_weight"] == 8 * 1000 / 1000
    assert flat["seconds"] == 3.0
    assert flat["retrained_top1"] == 0.8
    assert all(isinstance(value, float | int) for value in flat.values())


def test_figures_are_those_of_the_network_that_a_run_ends_with() -> None:
    made = result()
    for place, name in enumerate(made["accuracy"]):
        made["accuracy"][name] = made["accuracy"][name] | {
            "top1": 0.1 * place,
            "agreement": 0.2 * place,
            "n": 50 + place,
        }
    made["plan"] = [{"layer": 3, "bytes": 10}, {"layer": 12, "bytes": 7}, {"layer": 3, "bytes": 5}]
    flat = summary(made)
    assert (flat["top1"], flat["agreement"], flat["bytes"]) == (0.2, 0.4, 1000)
    assert (flat["teacher_top1"], flat["conventional_agreement"]) == (0.0, pytest.approx(0.6))
    assert {key: flat[key] for key in flat if key.startswith("layer")} == {"layer_bytes_03": 15, "layer_bytes_12": 7}
    assert {key: final(row(made))[key] for key in ("top1", "agreement", "n")} == {
        "top1": 0.2,
        "agreement": 0.4,
        "n": 52,
    }
    made["size"]["retrained_bytes"] = None
    del made["accuracy"]["retrained"]
    flat = summary(made)
    assert (flat["top1"], flat["agreement"], flat["bytes"]) == (0.1, 0.2, 900)
    assert final(row(made))["n"] == 51


def test_what_a_run_found_counts_the_bytes_of_its_last_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rules = [{"kind": "weight", "centroids": 4}, {"layers": "2", "kind": "bias", "centroids": 1}]
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 50), nn.Linear(50, 5))
    compressed = compress(model, rules, torch.zeros(1, 1, 4, 4))
    reports = {
        name: save(tmp_path / f"{name}.h5", compressed.model, compressed.codebooks, storage=storage)
        for name, storage in (("quantized", "gzip"), ("retrained", "packed"))
    }
    size, original = findings(compressed, reports, {}, {})["size"], 4 * (16 * 50 + 50 + 50 * 5 + 5)
    assert size["original_bytes"] == original
    assert size["quantized_bytes"] == (tmp_path / "quantized.h5").stat().st_size
    assert size["retrained_bytes"] == (tmp_path / "retrained.h5").stat().st_size == sum(size["parts"].values())
    assert size["size_reduction"] == 1 - size["retrained_bytes"] / original
    plan = findings(compressed, reports, {}, {})["plan"]
    assert [(entry["layer"], entry["kind"], entry["centroids"], entry["bytes"]) for entry in plan] == [
        (1, "weight", 4, 800 // 4 + 16),
        (2, "weight", 4, 63 + 16),
        (2, "bias", 1, 4),
    ]
    del reports["retrained"]
    size = findings(compressed, reports, {}, {})["size"]
    assert (size["retrained_bytes"], size["size_reduction"]) == (None, 1 - size["quantized_bytes"] / original)


def test_runs_without_retraining_have_rows_and_tables(tmp_path: Path) -> None:
    bare = result()
    bare["size"] = bare["size"] | {"retrained_bytes": None}
    bare["accuracy"] = {name: bare["accuracy"][name] for name in ("teacher", "quantized")}
    del bare["retrain"], bare["baseline"]
    assert row(bare)["bytes"] == 900
    assert row(bare)["retrained_top1"] is None
    assert result_table(bare).row_count == 2
    path = write_result(tmp_path, bare)
    assert len(table([path, path])) == 2
    draw_run(bare, tmp_path / "bare.png")
    assert (tmp_path / "bare.png").stat().st_size > 1000


def test_a_run_is_drawn_from_its_json_alone_raster_and_vector(tmp_path: Path) -> None:
    plain = json.loads(json.dumps(result()))
    for suffix, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        draw_run(plain, tmp_path / f"run.{suffix}")
        assert (tmp_path / f"run.{suffix}").read_bytes().startswith(magic)
