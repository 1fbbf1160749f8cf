import json
from pathlib import Path
from typing import Any

import pytest

from requant.errors import UserError
from requant.figures.run import draw_run
from requant.report import result_table
from requant.results import collect, read_result, row, summary, table, write_result


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
